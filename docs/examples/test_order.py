"""How an order is tested: in virtual time, with steps replaced where the test wants it."""

import pytest
from order import Approved, Order, fulfil_order

from durable import ExecutionFailed, ExecutionStatus
from durable.testing import DurableEnv

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def test_an_order_nobody_approves_is_refunded_after_three_days(durable_env: type[DurableEnv]) -> None:
    async with durable_env(workflows=[fulfil_order]) as env:
        refunded: list[str] = []
        env.stub("charge", "charge-1")
        env.stub("rollback:charge", refunded.append)
        handle = await env.durable.start(fulfil_order, Order("42", cents=1999))

        await env.advance("2d")
        assert (await handle.status()).status is ExecutionStatus.WAITING
        assert refunded == []

        await env.advance("1d")
        with pytest.raises(ExecutionFailed) as failed:
            await handle.result()
        assert failed.value.code == "not_approved"
        assert refunded == ["charge-1"]


async def test_a_charge_is_tried_five_times(durable_env: type[DurableEnv]) -> None:
    async with durable_env(workflows=[fulfil_order]) as env:
        env.fail("charge", ConnectionError("no route"), times=4)
        handle = await env.durable.start(fulfil_order, Order("42", cents=1999))
        await handle.signal(Approved, "ada")
        await env.advance("1m")
        assert await handle.result() == "parcel-42"
        detail = await env.durable.operator.get_execution_detail(handle.id)
        assert [(step.id, step.attempts) for step in detail.steps] == [
            ("charge", 5),
            ("approved", 1),
            ("ship", 1),
        ]
