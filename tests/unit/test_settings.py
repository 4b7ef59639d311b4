"""Settings: what is read, what is refused, and what is never shown."""

from __future__ import annotations

from importlib.util import find_spec

import pytest
from pydantic import ValidationError

from app import machine
from app.settings import PREFIX, Settings, load_settings, parse_place
from transforms.values import Colour


@pytest.fixture(autouse=True)
def _elsewhere(monkeypatch, tmp_path):
    """No `.env` of whoever runs this is read."""
    monkeypatch.chdir(tmp_path)


def read(monkeypatch, **values):
    for name, value in values.items():
        monkeypatch.setenv(PREFIX + name.upper(), value)
    return load_settings()


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0.0),
        ("10", 10.0),
        ("0.5", 0.5),
        ("500ms", 0.5),
        ("10s", 10.0),
        ("1.5 s", 1.5),
        ("5m", 300.0),
        ("2h", 7200.0),
        ("1d", 86400.0),
        (" 3S ", 3.0),
    ],
)
def test_a_duration_has_a_unit_or_is_in_seconds(monkeypatch, text, seconds):
    assert read(monkeypatch, freshness=text).freshness == seconds


@pytest.mark.parametrize("text", ["", "soon", "-1", "5 weeks", "1e3", "nan", "inf", "5mm", "s"])
def test_what_is_no_duration_is_refused(monkeypatch, text):
    with pytest.raises(ValidationError, match="duration"):
        read(monkeypatch, freshness=text)


def test_a_duration_may_be_a_number_in_code():
    assert Settings(_env_file=None, freshness=0.25).freshness == 0.25
    with pytest.raises(ValidationError):
        Settings(_env_file=None, freshness=-1)


@pytest.mark.parametrize(
    ("text", "size"),
    [("0", 0), ("1000", 1000), ("64MiB", 64 << 20), ("64MB", 64_000_000), ("1.5 GiB", 3 << 29)],
)
def test_a_size_has_a_unit_or_is_in_bytes(monkeypatch, text, size):
    assert read(monkeypatch, memory_cache=text).memory_cache == size


@pytest.mark.parametrize("text", ["", "many", "5 apples", "-1"])
def test_what_is_no_size_is_refused(monkeypatch, text):
    with pytest.raises(ValidationError):
        read(monkeypatch, memory_cache=text)


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("PIXELMILL_FRESHNES", "PIXELMILL_FRESHNESS"),
        ("PIXELMILL_WORKER", "PIXELMILL_WORKERS"),
        ("PIXELMILL_QUEUE_INTERACTIV", "PIXELMILL_QUEUE_INTERACTIVE"),
        ("PIXELMILL_APITOKENS", "PIXELMILL_API_TOKENS"),
        ("pixelmill_memorycache", "PIXELMILL_MEMORY_CACHE"),
    ],
)
def test_a_name_that_is_not_known_is_an_error_with_a_suggestion(monkeypatch, name, meant):
    monkeypatch.setenv(name, "5")
    with pytest.raises(ValueError, match=f"{name} is not a setting; did you mean {meant}\\?"):
        load_settings()


def test_a_name_like_no_other_has_no_suggestion(monkeypatch):
    monkeypatch.setenv("PIXELMILL_XYZZY", "5")
    with pytest.raises(ValueError, match=r"PIXELMILL_XYZZY is not a setting$"):
        load_settings()


def test_names_of_others_are_left_alone(monkeypatch):
    monkeypatch.setenv("PIXELS", "5")
    monkeypatch.setenv("FRESHNESS", "5")
    assert load_settings().freshness == 60.0


def test_a_file_is_read_and_the_environment_goes_before_it(monkeypatch, tmp_path):
    text = "PIXELMILL_PORT=7001\nPIXELMILL_HOST='0.0.0.0'\n# a comment\nOTHER=1\n"
    (tmp_path / ".env").write_text(text)
    monkeypatch.setenv("PIXELMILL_PORT", "7002")
    found = load_settings()
    assert (found.host, found.port) == ("0.0.0.0", 7002)
    assert load_settings(port=7003).port == 7003


def test_a_wrong_name_in_the_file_is_an_error_too(tmp_path):
    (tmp_path / ".env").write_text("PIXELMILL_PROT=7001\n")
    with pytest.raises(ValueError, match="PIXELMILL_PROT is not a setting; did you mean"):
        load_settings()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("port", "65536"),
        ("port", "-1"),
        ("port", "http"),
        ("workers", "-1"),
        ("workers", "many"),
        ("memory_share", "0"),
        ("memory_share", "1.5"),
        ("require_signature", "yes"),
        ("default_fit", "squash"),
        ("default_background", "nocolour"),
        ("formats", "jpeg,png,svg"),
        ("formats", "webp"),
        ("formats", ""),
        ("log_level", "loud"),
        ("s3_addressing", "both"),
        ("max_result_side", "9000"),
        ("max_source_pixels", "0"),
        ("allow_private_networks", "perhaps"),
        ("originals", "off"),
        ("originals", "file:"),
        ("originals", "s3://"),
        ("originals", "s3://ab"),
        ("results", "s3://No_Such Bucket/x"),
        ("targets", "s3://ab/*"),
        ("originals", "/a/folder"),
        ("results", ""),
        ("results", "http://host/folder"),
        ("keys", "k1"),
        ("keys", "k1:short"),
        ("keys", "k 1:a-secret-of-16-bytes"),
        ("keys", ":a-secret-of-16-bytes"),
        ("keys", "k1:a-secret-of-16-bytes,k1:another-secret-of-16"),
    ],
)
def test_a_wrong_value_is_refused_by_name(monkeypatch, name, value):
    with pytest.raises(ValidationError) as caught:
        read(monkeypatch, **{name: value})
    assert name in {error["loc"][0] for error in caught.value.errors()}


def test_an_error_does_not_tell_the_secret_that_is_wrong(monkeypatch):
    with pytest.raises(ValidationError) as caught:
        read(monkeypatch, keys="k1:a-secret-of-16-bytes,k2:hush-hush")
    messages = [error["msg"] for error in caught.value.errors()]
    assert not any("secret-of" in message or "hush" in message for message in messages)
    assert "hush" not in str(caught.value)
    assert "a-secret-of" not in str(caught.value)


def test_signatures_cannot_be_required_without_a_key(monkeypatch):
    with pytest.raises(ValidationError, match="PIXELMILL_REQUIRE_SIGNATURE needs PIXELMILL_KEYS"):
        read(monkeypatch, require_signature="all")


def test_lists_are_separated_by_commas(monkeypatch):
    found = read(
        monkeypatch,
        allowed_sources=" *.example.com, cdn.example.com:8443 ,,",
        formats="jpg,png,tif,jpeg",
        api_tokens="one-of-16-letters,two-of-16-letters",
        keys="new:a-new-secret-of-16,old:an-old-secret:of-16",
    )
    assert found.allowed_sources == ("*.example.com", "cdn.example.com:8443")
    assert found.formats == ("jpeg", "png", "tiff")
    assert [token.get_secret_value() for token in found.api_tokens] == [
        "one-of-16-letters",
        "two-of-16-letters",
    ]
    assert list(found.signing_keys.items()) == [
        ("new", b"a-new-secret-of-16"),
        ("old", b"an-old-secret:of-16"),
    ]


def test_secrets_are_never_shown(monkeypatch):
    found = read(monkeypatch, api_tokens="hush-token-of-16-letters", keys="k1:hush-secret-of-16")
    for shown in (repr(found), str(found), str(found.model_dump(mode="json"))):
        assert "hush" not in shown


def test_settings_do_not_change():
    found = Settings(_env_file=None)
    with pytest.raises(ValidationError):
        found.port = 1


def test_the_defaults_of_requests_come_from_the_settings():
    plain = Settings(_env_file=None).defaults
    assert (plain.fit, plain.background) == ("contain", None)
    own = Settings(_env_file=None, default_fit="cover", default_background="#123").defaults
    assert (own.fit, own.background) == ("cover", Colour(0x11, 0x22, 0x33))


def test_processors_and_memory_are_those_of_the_machine_unless_set(monkeypatch):
    monkeypatch.setattr(machine, "processors", lambda: 7)
    monkeypatch.setattr(machine, "memory", lambda: 3 << 30)
    plain, own = Settings(_env_file=None), Settings(_env_file=None, workers=2, memory_limit="1GiB")
    assert (plain.processors, plain.memory) == (7, 3 << 30)
    assert (own.processors, own.memory) == (2, 1 << 30)


def test_the_limits_are_those_of_the_settings():
    limits = Settings(
        _env_file=None, max_source_pixels=5, max_result_pixels=6, max_result_side=7, max_frames=8
    ).limits
    assert limits.source_pixels == 5
    assert limits.result_pixels == 6
    assert limits.result_side == 7
    assert limits.frames == 8


@pytest.mark.parametrize(
    ("text", "kind", "location", "prefix"),
    [
        ("file:./data/originals", "file", "./data/originals", ""),
        ("file:/srv/originals", "file", "/srv/originals", ""),
        ("file:///srv/originals", "file", "/srv/originals", ""),
        ("s3://bucket", "s3", "bucket", ""),
        ("s3://bucket/", "s3", "bucket", ""),
        ("s3://bucket/some/prefix/", "s3", "bucket", "some/prefix"),
        ("off", "off", "", ""),
    ],
)
def test_a_place_is_a_folder_or_a_bucket(text, kind, location, prefix):
    place = parse_place(text)
    assert (place.kind, place.location, place.prefix) == (kind, location, prefix)


@pytest.mark.parametrize(
    ("originals", "results"),
    [
        ("s3://photos", "s3://photos/results"),
        ("s3://photos", "s3://photos"),
        ("s3://photos/in", "s3://photos/in/results/"),
        ("file:./data", "file:./data/results"),
        ("file:data", "file:./other/../data"),
    ],
)
def test_results_lie_outside_the_originals(monkeypatch, originals, results):
    with pytest.raises(ValidationError, match="RESULTS lies within PIXELMILL_ORIGINALS"):
        read(monkeypatch, originals=originals, results=results)


@pytest.mark.parametrize(
    ("originals", "results"),
    [
        ("s3://photos/in", "s3://photos/in-results"),
        ("s3://photos/in", "s3://photos"),
        ("s3://photos", "s3://results"),
        ("file:photos", "file:photos-results"),
        ("file:photos", "s3://photos/results"),
        ("file:.", "off"),
    ],
)
def test_results_may_lie_beside_the_originals(monkeypatch, originals, results):
    assert read(monkeypatch, originals=originals, results=results).results == results


@pytest.mark.skipif(
    not all(map(find_spec, ("pgqueuer", "psycopg"))), reason="the extra postgres is not installed"
)
@pytest.mark.parametrize(
    "url",
    [
        "postgresql://me:hush@host:5432/jobs",
        "postgresql://me:hu@sh/hush@host/jobs",
        "postgresql://:hush@host/jobs",
        "postgresql://host/jobs?user=me&password=hush&sslmode=require",
        "postgresql://host/jobs?sslpassword=hush",
    ],
)
def test_the_password_of_a_database_is_never_shown(monkeypatch, url):
    settings = read(monkeypatch, database=url)
    assert settings.database == url
    shown = settings.model_dump(mode="json")["database"]
    assert "hu" not in shown + repr(settings)
    assert "host" in shown


def test_a_database_without_a_password_is_shown_whole(monkeypatch):
    settings = read(monkeypatch, database="sqlite:///./data/jobs.db")
    assert settings.model_dump(mode="json")["database"] == "sqlite:///./data/jobs.db"


@pytest.mark.parametrize(
    ("tokens", "told"),
    [
        ("hushhushhushhush@jobs:rad", "jobs:read, jobs:write"),
        ("hushhushhushhush@", "scopes"),
        ("hush", "at least 16 characters; number 1 has 4"),
        ("hush@jobs:read", "at least 16 characters"),
        ("@jobs:read", "at least 16 characters"),
        ("a-long-enough-secret,hushhushhushhush,hushhushhushhush@events", "number 3"),
    ],
)
def test_tokens_that_are_no_secrets_are_refused_and_not_told(monkeypatch, tokens, told):
    with pytest.raises(ValidationError, match="api_tokens") as caught:
        read(monkeypatch, api_tokens=tokens)
    assert told in str(caught.value)
    assert "hush" not in str(caught.value)
