"""Policies: an incentive for every context."""

import time

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import incentax as ix


def firm(demand):
    """The best tax is `demand - 1`."""
    game = ix.Game(lambda tax, x: x + tax - demand, ix.NonNegative((1,)))
    return ix.DesignProblem(game, lambda tax, x: ((x - 1) ** 2).sum(), ix.Box(0.0, 4.0))


class Linear(eqx.Module):
    slope: jax.Array
    level: jax.Array

    def __call__(self, demand):
        return self.slope * demand + self.level


START = Linear(jnp.zeros(1), jnp.ones(1))
DEMANDS = jnp.linspace(2.0, 4.0, 8)


@pytest.mark.parametrize("play_step", [None, 0.5])
def test_a_linear_policy_finds_the_closed_form(play_step):
    trained = ix.train_policy(
        firm, START, DEMANDS, optax.sgd(0.05), steps=4000, play_step=play_step
    )
    np.testing.assert_allclose(trained.policy.slope, [1.0], atol=1e-5)
    np.testing.assert_allclose(trained.policy.level, [-1.0], atol=1e-5)
    np.testing.assert_allclose(trained.theta[:, 0], DEMANDS - 1, atol=1e-4)
    assert float(trained.residuals.max()) < 1e-9
    assert float(trained.history.objective[-1]) < 1e-8 < float(trained.history.objective[0])


@pytest.mark.slow  # many programs
def test_its_gradient_is_that_of_the_mean_objective():
    trained = ix.train_policy(firm, START, DEMANDS, optax.sgd(0.0), steps=1)

    def mean(policy):
        def one(demand):
            problem, tax = firm(demand), policy(demand)
            return problem.objective(tax, ix.solve_equilibrium(problem.game, tax).x)

        return jnp.mean(jax.vmap(one)(DEMANDS))

    whole = jax.grad(mean)(START)
    size = np.sqrt(float(jnp.sum(whole.slope**2) + jnp.sum(whole.level**2)))
    np.testing.assert_allclose(trained.history.gradient[0], size, rtol=1e-7)
    np.testing.assert_allclose(trained.history.objective[0], mean(START), rtol=1e-12)


@pytest.mark.slow
def test_batches_are_drawn_and_need_a_key():
    how = {"steps": 4000, "batch": 3}
    trained = ix.train_policy(firm, START, DEMANDS, optax.sgd(0.05), key=jax.random.key(0), **how)
    np.testing.assert_allclose(trained.policy.slope, [1.0], atol=1e-2)
    with pytest.raises(ValueError, match="needs a key for batches"):
        ix.train_policy(firm, START, DEMANDS, optax.sgd(0.05), **how)


@pytest.mark.slow
def test_a_network_over_64_contexts_steps_in_three_milliseconds():
    cost = jnp.linspace(1.0, 2.0, 5)

    def market(context):
        def operator(tax, x, total):
            return cost + tax - (context[0] - context[1] * (x + total))

        def lost(tax, x):
            total = x.sum()
            gained = context[0] * total - context[1] * total**2 / 2 - cost @ x - 3 * total
            return 0.05 * (tax**2).sum() - gained

        game = ix.AggregativeGame(operator, lambda tax, x: x.sum(), ix.NonNegative((5,)))
        return ix.DesignProblem(game, lost, ix.Box(jnp.zeros(5), 5.0))

    class Network(eqx.Module):
        layers: eqx.nn.MLP

        def __call__(self, context):
            scaled = (context - jnp.array([11.0, 1.0])) / jnp.array([2.0, 0.1])
            return 5 * jax.nn.sigmoid(self.layers(scaled))

    first, second = jax.random.split(jax.random.key(1))
    contexts = jnp.stack(
        [
            jax.random.uniform(first, (64,), minval=8.0, maxval=14.0),
            jax.random.uniform(second, (64,), minval=0.8, maxval=1.2),
        ],
        axis=1,
    )
    network = Network(eqx.nn.MLP(2, 5, 32, 2, key=jax.random.key(0)))
    optimizer = optax.sgd(0.02, momentum=0.9)

    def train():
        began = time.process_time()
        trained = ix.train_policy(market, network, contexts, optimizer, steps=2000)
        jax.block_until_ready(trained.x)
        return trained, time.process_time() - began

    train()
    trained, seconds = train()
    assert seconds / 2000 < 3e-3
    apart = [ix.design(market(context), jnp.ones(5)).objective for context in contexts[:6]]
    np.testing.assert_allclose(trained.objectives[:6], jnp.stack(apart), rtol=3e-3)


def test_an_output_outside_of_the_set_is_told_with_its_context():
    with pytest.raises(ValueError, match=r"1 outside, in context 7"):
        ix.train_policy(firm, Linear(jnp.ones(1), jnp.ones(1)), DEMANDS, optax.sgd(0.1), steps=2)
    # One that leaves it while it is trained.
    with pytest.raises(RuntimeError, match="left the incentive set"):
        ix.train_policy(
            lambda demand: ix.DesignProblem(
                firm(demand).game, firm(demand).objective, ix.Box(0.0, 2.0)
            ),
            START,
            DEMANDS,
            optax.sgd(0.1),
            steps=200,
        )


def test_wrong_arguments_are_told():
    with pytest.raises(ValueError, match="a common leading axis"):
        ix.train_policy(firm, START, jnp.zeros(()), optax.sgd(0.1), steps=2)
    with pytest.raises(ValueError, match="at most the 8 contexts, got 9"):
        ix.train_policy(
            firm, START, DEMANDS, optax.sgd(0.1), steps=2, batch=9, key=jax.random.key(0)
        )
    with pytest.raises(TypeError, match="needs a `DesignProblem`"):
        ix.train_policy(lambda demand: demand, START, DEMANDS, optax.sgd(0.1), steps=2)

    def bounded(demand):
        one = firm(demand)
        cap = ix.Constraint(lambda tax, x: x.sum(), upper=3.0)
        return ix.DesignProblem(one.game, one.objective, one.incentive_set, constraints=[cap])

    with pytest.raises(ValueError, match="without constraints"):
        ix.train_policy(bounded, START, DEMANDS, optax.sgd(0.1), steps=2)
    with pytest.raises(RuntimeError, match="learning rate"):
        ix.train_policy(firm, START, DEMANDS, optax.sgd(jnp.nan), steps=2)


def test_agents_who_are_left_behind_are_told():
    def steep(demand):
        game = ix.Game(lambda tax, x: 5 * (x + x.sum()) + tax - demand, ix.Reals((2,)))
        return ix.DesignProblem(game, lambda tax, x: ((x - 1) ** 2).sum(), ix.Box(-50.0, 50.0))

    with pytest.raises(ix.DesignFailure, match="step size") as failure:
        ix.train_policy(steep, START, DEMANDS, optax.sgd(1e-6), steps=20, play_step=0.2)
    assert failure.value.solution.residuals.max() < 1e-6


def test_a_policy_without_parameters_is_told():
    with pytest.raises(ValueError, match="floating arrays to train"):
        ix.train_policy(firm, lambda demand: demand[None] / 2, DEMANDS, optax.sgd(0.1), steps=2)
    nan = Linear(jnp.full(1, jnp.nan), jnp.ones(1))
    with pytest.raises(ValueError, match="got NaN in context"):
        ix.train_policy(firm, nan, DEMANDS, optax.sgd(0.1), steps=2)
