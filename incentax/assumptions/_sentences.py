"""What follows from every verdict on every assumption, and what to do: read by name and verdict."""

# Of the step sizes in both theories.
_LONGER = (
    "steps in use are far longer: play up to 2 / (largest slope) settles, the designer's is "
    "tuned; take the longest that does not oscillate"
)
_SHORT_OF_SMOOTHING = "steps in use are far longer; keep them below 2 smoothing"

# (assumption, verdict) or (assumption, verdict, case): (what follows, what to do), in both of
# which `{names}` stand for what was measured.
SENTENCES: dict[tuple[str, ...], tuple[str, str]] = {
    ("operator and its derivatives finite on the sets", "fails"): (
        "{where}; every other row is from the samples that are left",
        "shrink the sets to where the operator is defined, or correct it there",
    ),
    ("strategies compact, convex", "holds"): (
        "an equilibrium exists wherever costs are continuous and own costs convex",
        "",
    ),
    ("strategies compact, convex", "fails"): (
        "Theorem 5.4 is stated for all of R^d nevertheless: read its constants on a ball that "
        "holds the play",
        "bound strategies (ix.Box) if play runs away; existence then follows",
    ),
    ("incentives compact, convex", "holds"): ("the gradient of f_* can be bounded", ""),
    ("incentives compact, convex", "fails"): (
        "a strongly convex f_* has no bounded gradient on it; rates hold while theta stays in a "
        "ball",
        "give `incentive_set` bounds that no sensible theta exceeds",
    ),
    ("strategies R^d or simplices", "fails"): (
        "neither theorem covers bounds: the surrogate gradient jumps where one becomes active",
        "design-and-play works there without a theorem; certify what it returns, or use the "
        "accurate designer",
    ),
    ("operator Lipschitz, H_u", "holds"): ("bounds the play step that the theorem allows", ""),
    ("operator Lipschitz, H_u", "fails"): (
        "the slope of log x has no bound near x = 0: the theorem allows no step size",
        "give the mixing that the scheme uses: diagnose(..., mixing=nu); or a QuantalResponse with "
        "epsilon > 0, which gives up strong stability",
    ),
    ("operator Lipschitz, H_u", "not decidable"): (
        "met at samples; steps below are upper bounds of what is allowed",
        "",
    ),
    ("regular Jacobian, rho_theta / rho_x = H_*", "holds"): (
        "where no bound is active x* answers to theta with at most this slope",
        "",
    ),
    ("regular Jacobian, rho_theta / rho_x = H_*", "fails"): (
        "x* may jump, or what agents do is not unique",
        "aggregates may still be unique (link flows): take an objective of those",
    ),
    ("regular Jacobian, rho_theta / rho_x = H_*", "not decidable"): (
        "x* answers to theta with this slope or a larger one",
        "",
    ),
    ("strong stability", "holds"): (
        "{reason} (at this theta). One equilibrium, to which play converges",
        "",
    ),
    ("strong stability", "fails"): (
        "{reason} (at this theta). No theorem promises that play settles, or that x* is the only "
        "one",
        "list the equilibria with ix.equilibria; design with `selection` where there are several",
    ),
    ("strong stability", "fails", "entropic"): (
        "{reason} (at this theta). No theorem promises that play settles, or that x* is the only "
        "one",
        "ix.QuantalResponse(game, eta) has it on a monotone game with lambda >= 1 / eta; or name "
        "the mixing in use: diagnose(..., mixing=nu)",
    ),
    ("strong stability", "not decidable"): (
        "{reason} (at this theta). Nothing follows",
        "look for others with ix.equilibria, and certify what is designed",
    ),
    ("strongly monotone with weights", "holds"): (
        "one equilibrium on every convex set ({reason})",
        "",
    ),
    ("strongly monotone with weights", "holds", "sampled"): (
        "one equilibrium on every convex set ({reason}), as far as samples tell",
        "",
    ),
    ("strongly monotone with weights", "fails"): (
        "where it is monotone still, equilibria may form a continuum (Case II); else several may "
        "be isolated (Case I)",
        "ix.equilibria shows them; ix.quantal_path selects",
    ),
    ("strongly monotone with weights", "not decidable"): (
        "where it is monotone still, equilibria may form a continuum (Case II); else several may "
        "be isolated (Case I)",
        "ix.equilibria shows them; ix.quantal_path selects",
    ),
    ("f_* strongly convex, mu", "holds"): (
        "one optimum; the rates of 5.4 and 5.5 are for it",
        "",
    ),
    ("f_* strongly convex, mu", "fails"): (
        "no rate is promised; a stationary point is what schemes look for",
        "start several times; or add a cost of intervention, c ||theta||^2",
    ),
    ("f_* strongly convex, mu", "not decidable"): (
        "nothing met at samples contradicts it",
        "compare ix.design from several starts",
    ),
    ("gradient of f_* bounded, M", "holds"): ("f_* is Lipschitz with this constant", ""),
    ("gradient of f_* bounded, M", "fails"): ("grows with theta on an unbounded set", ""),
    ("gradient of f_* bounded, M", "not decidable"): ("f_* is no less steep", ""),
    ("surrogate gradient Lipschitz, H~", "holds"): (
        "what an error of play does to the designer's step",
        "",
    ),
    ("surrogate gradient Lipschitz, H~", "fails"): (
        "an error of play may do anything to the designer's step",
        "",
    ),
    ("surrogate gradient Lipschitz, H~", "not decidable"): (
        "an error of the agents' play changes the designer's step by at least this factor",
        "",
    ),
    ("step sizes of Theorem 5.4", "holds"): (
        "with play steps lambda^i beta, or less, schedules.theorem_5_4 converges like k^(-2/3)",
        _LONGER,
    ),
    ("step sizes of Theorem 5.5", "holds"): (
        "with play steps lambda^i beta, or less, schedules.theorem_5_5 converges like k^(-2/7)",
        _LONGER,
    ),
    ("step sizes of Theorem 5.4", "fails"): (
        "the theorem says nothing without the assumptions above",
        _LONGER,
    ),
    ("step sizes of Theorem 5.5", "fails"): (
        "the theorem says nothing without the assumptions above",
        _LONGER,
    ),
    ("step sizes of Theorem 5.4", "not decidable"): (
        "sampled constants bound steps from one side alone",
        _LONGER,
    ),
    ("step sizes of Theorem 5.5", "not decidable"): (
        "sampled constants bound steps from one side alone",
        _LONGER,
    ),
    ("operator strongly monotone and Lipschitz, mu and L", "holds"): (
        "projected play contracts{best_step}",
        "",
    ),
    ("operator strongly monotone and Lipschitz, mu and L", "fails"): (
        "inner loops are not sure to contract",
        "end inner loops by `inner_tol`, and look at `inner_residual` in the history",
    ),
    ("operator strongly monotone and Lipschitz, mu and L", "not decidable"): (
        "inner loops are not sure to contract",
        "end inner loops by `inner_tol`, and look at `inner_residual` in the history",
    ),
    ("operator Lipschitz in theta, l", "holds"): (
        "where the strategy set does not move, x* is Lipschitz with constant l / mu",
        "",
    ),
    ("operator Lipschitz in theta, l", "fails"): (
        "x* may answer to theta without bound",
        "shrink the incentive set to where the operator has a bounded slope",
    ),
    ("operator Lipschitz in theta, l", "not decidable"): (
        "on a set that does not move x* is Lipschitz with l / mu, where l is at least this",
        "",
    ),
    ("costs Lipschitz, L_x and L_theta; L0", "holds"): (
        "with smoothing {smoothing:g} {steps}",
        _SHORT_OF_SMOOTHING,
    ),
    ("costs Lipschitz, L_x and L_theta; L0", "fails"): (
        "no step is sure to descend",
        _SHORT_OF_SMOOTHING,
    ),
    ("costs Lipschitz, L_x and L_theta; L0", "not decidable"): (
        "with smoothing {smoothing:g} {steps}",
        _SHORT_OF_SMOOTHING,
    ),
}
