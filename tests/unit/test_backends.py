"""How a URL finds its backend."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from durable.backends import Backend, backend_for
from durable.backends.memory import backend as memory
from durable.errors import ConfigurationError

Install = Callable[..., None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Install a distribution with a backend's entry point, and with its module if there is a source."""

    def install(distribution: str, scheme: str, value: str, source: str | None = None) -> None:
        site = tmp_path / distribution
        metadata = site / f"{distribution}-1.0.dist-info"
        metadata.mkdir(parents=True)
        (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n")
        (metadata / "entry_points.txt").write_text(f"[durable.backends]\n{scheme} = {value}\n")
        if source is not None:
            (site / f"{value.partition(':')[0]}.py").write_text(source)
        monkeypatch.syspath_prepend(site)

    return install


@pytest.mark.parametrize("url", ["memory://", "memory://orders", "MEMORY://"])
def test_a_scheme_leads_to_its_backend(url: str) -> None:
    assert backend_for(url) is memory


def test_a_backend_of_strangers_is_used_as_ours_are(install: Install) -> None:
    source = "from durable.backends import Backend\nbackend = Backend(open_store=len)"
    install("etcd_for_durable", "etcd+tls", "strange_etcd:backend", source)
    backend = backend_for("etcd+tls://localhost")
    assert isinstance(backend, Backend)
    assert backend.open_store is not None
    assert (backend.open_queue, backend.open_bus) == (None, None)


def test_an_unknown_scheme_is_refused_with_those_that_are_known() -> None:
    with pytest.raises(ConfigurationError, match="cassandra://localhost") as refusal:
        backend_for("cassandra://localhost")
    assert "memory" in refusal.value.hint
    assert "pip" not in refusal.value.hint


@pytest.mark.parametrize(
    ("scheme", "extra", "driver"), [("amqps", "rabbitmq", "aiormq"), ("rediss+sentinel", "redis", "hiredis")]
)
def test_what_needs_an_extra_says_which(
    monkeypatch: pytest.MonkeyPatch, scheme: str, extra: str, driver: str
) -> None:
    for name in list(sys.modules):
        if name.startswith((f"durable.backends.{extra}", f"{driver}.")):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, driver, None)
    with pytest.raises(ConfigurationError) as refusal:
        backend_for(f"{scheme}://localhost")
    assert f"pip install 'durable[{extra}]'" in refusal.value.hint
    assert isinstance(refusal.value.__cause__, ImportError)


@pytest.mark.parametrize("url", ["orders.db", "", "://x", "memory:", "memory:/", " memory://", "1://x"])
def test_what_is_no_url_is_refused(url: str) -> None:
    with pytest.raises(ConfigurationError, match="is not the URL of a backend"):
        backend_for(url)


@pytest.mark.parametrize("url", ["nosuch://ada:hunter2@localhost", "ada:hunter2@localhost"])
def test_a_password_is_in_no_error(url: str) -> None:
    with pytest.raises(ConfigurationError) as refusal:
        backend_for(url)
    assert "hunter2" not in f"{refusal.value} {refusal.value.hint}"


@pytest.mark.parametrize("source", ["backend = object()", "other = 1"], ids=["another type", "no such name"])
def test_an_entry_point_that_names_no_backend_is_refused(install: Install, source: str) -> None:
    install("odd", "odd", "odd_backend:backend", source)
    with pytest.raises(ConfigurationError, match="odd"):
        backend_for("odd://")
    del sys.modules["odd_backend"]


def test_two_packages_with_one_scheme_are_refused(install: Install) -> None:
    install("one", "twice", "one_backend:backend")
    install("two", "twice", "two_backend:backend")
    with pytest.raises(ConfigurationError, match="one_backend:backend, two_backend:backend"):
        backend_for("twice://")


def test_a_backend_is_imported_when_its_url_is_used_and_not_before() -> None:
    program = (
        "import sys, durable.backends\n"
        "assert 'durable.backends.memory' not in sys.modules\n"
        "durable.backends.backend_for('memory://')\n"
        "assert 'durable.backends.memory' in sys.modules\n"
        "assert 'durable.backends.sqlite' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
