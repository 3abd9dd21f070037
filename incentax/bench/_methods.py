"""Every method by its name."""

from . import _general, _ours, _rivals
from ._answer import Method

METHODS = {
    "design": Method("`ix.design` with its defaults", _ours.accurately),
    "design-and-play": Method("`ix.DesignAndPlay`, Adam, 3,000 steps", _ours.by_design_and_play),
    "double loop": Method("`ix.DoubleLoop`, Adam, 300 steps", _ours.by_double_loop),
    "regulator": Method("`ix.ZerothOrderRegulator`, 2,000 steps on values", _ours.by_regulator),
    "SLSQP": Method("scipy's, on our exact gradients", _general.by_slsqp),
    "L-BFGS-B": Method("scipy's, on our exact gradients", _general.by_lbfgsb),
    "Nelder-Mead": Method("scipy's, on values at our equilibria", _general.by_nelder_mead),
    "CMA-ES": Method("on values at our equilibria", _general.by_cma, ("cma",), ("cma",)),
    "pympcc": Method(
        "Scholtes' relaxation by IPOPT, or by pounce where that is not installed",
        _rivals.by_pympcc,
        ("pympcc", "pounce-solver"),
        ("pympcc", "pounce"),
    ),
    "mpecss": Method(
        "Scholtes' relaxation with adaptive parameters by CasADi's IPOPT, where all is quadratic",
        _rivals.by_mpecss,
        ("mpecss",),
        ("mpecss", "casadi"),
    ),
    "NashOpt": Method(
        "its default penalty, up to 10,000 iterations",
        _rivals.by_nashopt,
        ("nashopt", "qpsolvers"),
        ("nashopt", "qpsolvers"),
    ),
    "NashOpt, best penalty": Method(
        "the best out of eight penalties, all of them counted",
        _rivals.by_nashopt_at_its_best,
        ("nashopt", "qpsolvers"),
        ("nashopt", "qpsolvers"),
    ),
    "optimistix": Method(
        "its implicit layer under L-BFGS-B, where agents have no constraints",
        _rivals.by_optimistix,
        ("optimistix",),
        ("optimistix",),
    ),
}
