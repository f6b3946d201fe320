"""IPFS through gateways on loopback, good and hostile, over archives that ipfs-unixfs-importer made."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from engine.core.errors import SetupError
from tests.artifacts.conftest import FIXTURES, Fetch
from tests.servers.gateway import Gateway

pytestmark = pytest.mark.slow

FILE = "bafybeifc4nzx7mxtqghgu33a6t2a2wr4wnnngkngretuhify5vd24yiysy"
FILE_V0 = "QmWiuSKg4UH5L65raqwu2yJtFtQ3ekNvJpXhLvHykgLJaN"
FOLDER = "bafybeibnsmut7q4uajs4ifyxkl2xmzm3dgapgaom6bcal4cyeiu4loodd4"
SHARDED = "bafybeib2jgvgi6cpxwdgtyszp7daoh7g6iwlncida6prk2vixiuf3xpeo4"
ONE = "bafkreidd2eujucxpr7e3hgahqvizvazfwztibs7nvggi67zpt3wcuwzoie"


def content(size: int, seed: int) -> bytes:
    """The bytes that fixtures/make.mjs puts into a file."""
    out, state = bytearray(), seed
    for _ in range(size):
        # JavaScript multiplies as doubles; the product of a seed under 2^31 loses its lowest bits.
        state = int(float(state * 1103515245) + 12345) % 2147483648
        out.append(state >> 16 & 255)
    return bytes(out)


@pytest.fixture(params=[True, False], ids=["car", "blocks"])
def car(request: pytest.FixtureRequest) -> bool:
    found: bool = request.param
    return found


def ask(*gateways: Gateway, car: bool = True) -> dict[str, object]:
    return {"gateways": [each.url for each in gateways], "car": car}


def test_a_file_of_many_blocks_is_put_together(gateway: Gateway, get: Fetch, car: bool) -> None:
    found = get(f"ipfs://{FILE}?format=gguf", ipfs=ask(gateway, car=car))
    assert found.path.read_bytes() == content(5000, 7)
    assert found.cid == FILE
    assert (len(gateway.asked.cars), len(gateway.asked.blocks)) == ((1, 0) if car else (0, 28))


def test_a_version_0_id_names_the_same_content(gateway: Gateway, get: Fetch, car: bool) -> None:
    found = get(f"ipfs://{FILE_V0}?format=gguf", ipfs=ask(gateway, car=car))
    assert found.path.read_bytes() == content(2000, 9)
    assert found.cid == "bafybeid4sdwreqhdcns54bwwtx6xwunagnahwh3lthuf3yjgrnd3avpahm"


def test_a_single_block_is_a_file(gateway: Gateway, get: Fetch, car: bool) -> None:
    assert get(f"ipfs://{ONE}?format=gguf", ipfs=ask(gateway, car=car)).path.read_bytes() == content(100, 1)


def test_a_folder_has_its_files(gateway: Gateway, get: Fetch, car: bool) -> None:
    path = get(f"ipfs://{FOLDER}?format=safetensors", ipfs=ask(gateway, car=car)).path
    assert (path / "model.safetensors").read_bytes() == content(3000, 3)
    assert (path / "1_Pooling" / "config.json").read_text() == "{}"


def test_a_sharded_folder_has_its_files(gateway: Gateway, get: Fetch) -> None:
    path = get(f"ipfs://{SHARDED}?format=safetensors", ipfs=ask(gateway)).path
    assert {file.name: file.read_text() for file in path.iterdir()} == {
        f"part-{number}.txt": f"part {number}\n" for number in range(400)
    }


def test_a_path_leads_into_a_folder(gateway: Gateway, get: Fetch, car: bool) -> None:
    found = get(f"ipfs://{FOLDER}/model.safetensors", ipfs=ask(gateway, car=car))
    assert found.path.name == "model.safetensors"
    assert found.path.read_bytes() == content(3000, 3)


@pytest.mark.parametrize("number", [0, 7, 123, 399])
def test_a_path_leads_through_shards_with_few_blocks(gateway: Gateway, get: Fetch, number: int) -> None:
    found = get(f"ipfs://{SHARDED}/part-{number}.txt?format=gguf", ipfs=ask(gateway, car=False))
    assert found.path.read_text() == f"part {number}\n"
    assert len(gateway.asked.blocks) <= 4


@pytest.mark.parametrize("root", [FOLDER, SHARDED])
def test_a_path_that_is_not_there_is_said(gateway: Gateway, get: Fetch, root: str) -> None:
    with pytest.raises(SetupError, match=r"the folder has no 'none\.gguf'"):
        get(f"ipfs://{root}/none.gguf", ipfs=ask(gateway))


def test_what_is_cached_needs_no_gateway(gateway: Gateway, get: Fetch) -> None:
    get(f"ipfs://{FILE}?format=gguf", ipfs=ask(gateway))
    found = get(f"ipfs://{FILE}?format=gguf", offline=True, ipfs={"gateways": ["http://127.0.0.1:9"]})
    assert found.path.read_bytes() == content(5000, 7)


def test_a_forged_block_never_becomes_a_file(gateway: Gateway, get: Fetch, car: bool, tmp_path: Path) -> None:
    gateway.manners.forge = list(gateway.order[FILE])[5]
    said: list[str] = []
    with pytest.raises(SetupError, match=r"sent bytes that are not baf"):
        get(f"ipfs://{FILE}?format=gguf", ipfs=ask(gateway, car=car), notify=said.append)
    assert any("it is not used again" in line for line in said)
    assert not list((tmp_path / "cache").glob("objects/*"))


def test_an_honest_gateway_makes_up_for_a_forger(gateway: Gateway, get: Fetch, car: bool) -> None:
    with Gateway(*FIXTURES.glob("*.car")) as forger:
        forger.manners.forge = list(forger.order[FILE])[5]
        found = get(f"ipfs://{FILE}?format=gguf", ipfs=ask(forger, gateway, car=car))
    assert found.path.read_bytes() == content(5000, 7)
    # After the forgery was seen only the honest one was asked.
    assert gateway.asked.blocks


def test_a_gateway_that_is_down_is_passed_over(gateway: Gateway, get: Fetch, car: bool) -> None:
    with Gateway() as failing:
        failing.manners.status = 500
        get(
            f"ipfs://{FILE}?format=gguf",
            ipfs={"gateways": ["http://127.0.0.1:9", failing.url, gateway.url], "car": car, "parallel": 1},
        )
        # Asked once, then left out while its circuit is open.
        assert len(failing.asked.blocks) + len(failing.asked.cars) == 1


def test_a_gateway_that_lacks_a_block_is_helped_out_by_another(gateway: Gateway, get: Fetch, car: bool) -> None:
    lost = list(gateway.order[FILE])[9]
    with Gateway(*FIXTURES.glob("*.car")) as poor:
        poor.manners.missing = (lost,)
        found = get(f"ipfs://{FILE}?format=gguf", ipfs=ask(poor, gateway, car=car))
    assert found.path.read_bytes() == content(5000, 7)
    assert gateway.asked.blocks == [lost]


def test_without_any_gateway_that_has_it_each_is_named(gateway: Gateway, get: Fetch) -> None:
    gone = "bafkreigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy"
    with pytest.raises(SetupError, match=f"no gateway has {gone} .*{re.escape(gateway.url)} has no such file"):
        get(f"ipfs://{gone}?format=gguf", ipfs=ask(gateway))


def test_a_cut_archive_is_completed_block_by_block(gateway: Gateway, get: Fetch) -> None:
    gateway.manners.cut_after = 3000
    assert get(f"ipfs://{FILE}?format=gguf", ipfs=ask(gateway)).path.read_bytes() == content(5000, 7)
    assert 0 < len(gateway.asked.blocks) < 28


def test_an_archive_in_any_order_will_do(gateway: Gateway, get: Fetch) -> None:
    gateway.manners.shuffle = True
    assert get(f"ipfs://{FILE}?format=gguf", ipfs=ask(gateway)).path.read_bytes() == content(5000, 7)


def test_a_gateway_without_archives_is_asked_for_blocks(gateway: Gateway, get: Fetch) -> None:
    gateway.manners.car_status = 406
    assert get(f"ipfs://{FILE}?format=gguf", ipfs=ask(gateway)).path.read_bytes() == content(5000, 7)


def test_blocks_that_nobody_wants_are_not_kept(gateway: Gateway, get: Fetch, tmp_path: Path) -> None:
    gateway.manners.junk_blocks = 3
    get(f"ipfs://{FILE}?format=gguf", ipfs=ask(gateway))
    assert sum(path.stat().st_size for path in (tmp_path / "cache").rglob("*") if path.is_file()) < 100_000


def test_a_flood_of_unasked_blocks_is_left(gateway: Gateway, get: Fetch) -> None:
    gateway.manners.junk_blocks = 70
    assert get(f"ipfs://{FILE}?format=gguf", ipfs=ask(gateway)).path.read_bytes() == content(5000, 7)
    assert len(gateway.asked.blocks) == 28


def test_a_block_over_the_limit_is_refused(gateway: Gateway, get: Fetch) -> None:
    with pytest.raises(SetupError, match=r"a block of more than 1024 bytes \(storage\.ipfs\.max_block_bytes\)"):
        get(f"ipfs://{SHARDED}?format=gguf", ipfs={**ask(gateway, car=False), "max_block_bytes": 1024})


def test_more_than_allowed_is_refused(gateway: Gateway, get: Fetch, car: bool) -> None:
    with pytest.raises(SetupError, match=r"larger than storage\.max_bytes=2000 allows"):
        get(f"ipfs://{FILE}?format=gguf", max_bytes=2000, ipfs=ask(gateway, car=car))


def test_blocks_that_are_here_are_not_fetched_again(gateway: Gateway, get: Fetch) -> None:
    gateway.manners.cut_after = 3000
    gateway.manners.missing = tuple(list(gateway.order[FILE])[20:])
    with pytest.raises(SetupError, match="no gateway has"):
        get(f"ipfs://{FILE}?format=gguf", ipfs=ask(gateway))
    gateway.manners.missing, gateway.manners.cut_after = (), None
    gateway.asked.blocks.clear()
    assert get(f"ipfs://{FILE}?format=gguf", ipfs=ask(gateway)).path.read_bytes() == content(5000, 7)
    assert set(gateway.asked.blocks) <= set(list(gateway.order[FILE])[10:])


def test_a_torn_block_on_the_disk_is_fetched_again(gateway: Gateway, get: Fetch, tmp_path: Path) -> None:
    gateway.manners.missing = (list(gateway.order[FILE])[27],)
    with pytest.raises(SetupError):
        get(f"ipfs://{FILE}?format=gguf", ipfs=ask(gateway))
    blocks = [
        path for path in (tmp_path / "cache" / "partial").rglob("baf*") if path.is_file() and "blocks" in str(path)
    ]
    blocks[0].write_bytes(blocks[0].read_bytes()[:-1])
    gateway.manners.missing = ()
    assert get(f"ipfs://{FILE}?format=gguf", ipfs=ask(gateway)).path.read_bytes() == content(5000, 7)


def test_gateways_may_come_from_the_environment(gateway: Gateway, get: Fetch, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IPFS_GATEWAY", f"http://127.0.0.1:9, {gateway.url}/")
    assert get(f"ipfs://{ONE}?format=gguf").path.read_bytes() == content(100, 1)
