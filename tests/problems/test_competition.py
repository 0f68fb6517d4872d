import pytest

from fastmath_kit.errors import ConfigError
from fastmath_kit.problems.competition import Competition, competition_names, load_competition

REQUIRED = "name: mine\nslug: my-cup\nserver: cup.Server\n"


@pytest.mark.parametrize(
    ("name", "answer", "expected"),
    [
        ("aimo2", 0, 0),  # lowest
        ("aimo2", 999, 999),  # highest
        ("aimo2", 1000, 0),  # taken modulo 1000
        ("aimo2", -900, 100),  # also below zero
        ("aimo3", 0, 0),  # lowest
        ("aimo3", 99_999, 99_999),  # highest
        ("aimo3", 100_000, None),  # no modulus: out of range is no answer
        ("aimo3", -1, None),  # nor is a negative one
        ("aimo3", 10**39, None),  # nor a huge one
        ("aimo3", r"\frac{1}{2}", None),  # text is no answer here
        ("aimo3", None, None),  # nothing boxed
    ],
)
def test_legal_answer(name, answer, expected):
    assert load_competition(name).legal_answer(answer) == expected


def test_rules_are_those_of_kaggle():
    aimo2, aimo3 = load_competition("aimo2"), load_competition("aimo3")
    assert (aimo2.gpu, aimo2.num_gpus, aimo2.call_limit_s) == ("NvidiaL4", 4, 30 * 60)
    assert (aimo3.gpu, aimo3.num_gpus, aimo3.call_limit_s) == ("NvidiaH100", 1, 9 * 3600)
    assert aimo2.notebook_limit_s == aimo3.notebook_limit_s == 5 * 3600
    assert competition_names() == ["aimo2", "aimo3"]


def test_own_yaml(tmp_path):
    path = tmp_path / "cup.yaml"
    path.write_text(REQUIRED + "max_answer: 9\nmodulus: null\nnotebook_limit_s: 3600\n")
    cup = load_competition(path)
    assert (cup.name, cup.max_answer, cup.modulus, cup.notebook_limit_s) == ("mine", 9, None, 3600)
    assert cup.legal_answer(10) is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (REQUIRED + "max_anwser: 9\n", "unknown field 'max_anwser'. Did you mean 'max_answer'?"),
        (REQUIRED + "max_answer: many\n", "max_answer has the wrong type, got 'many'"),  # text
        (REQUIRED + "num_gpus: true\n", "num_gpus has the wrong type, got True"),  # bool is an int
        (REQUIRED + "max_answer: 9.5\n", "max_answer has the wrong type, got 9.5"),  # fraction
        (REQUIRED + "modulus: 0\n", "modulus must be at least 1 or null, got 0"),  # range
        (REQUIRED + "min_answer: 5\nmax_answer: 4\n", "min_answer=5, max_answer=4"),  # order
        (REQUIRED + "notebook_limit_s: -1\n", "notebook_limit_s must be positive, got -1"),
        (REQUIRED + "call_limit_s: .nan\n", "call_limit_s must be positive, got nan"),
        ("name: mine\n", "no field 'slug'. Needed: name, slug, server."),  # required fields
        ("- a list\n", "expected fields such as `name: mine`"),  # another shape
        ("", "expected fields such as `name: mine`"),  # empty file
        ("name: [mine\nslug: x\n", "not YAML"),  # syntax
        ("name: !!python/object:os.system x\n", "not YAML"),  # no code from YAML
    ],
)
def test_bad_yaml_says_what_is_wrong_in_one_line(tmp_path, text, message):
    path = tmp_path / "cup.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_competition(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_latin1_yaml_is_refused(tmp_path):
    path = tmp_path / "cup.yaml"
    path.write_bytes("name: caf\xe9\n".encode("latin-1"))
    with pytest.raises(ConfigError, match="not YAML"):
        load_competition(path)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("aimo4", "Did you mean 'aimo3'"),  # near
        ("kaggle", "Known: aimo2, aimo3"),  # far
        ("gone.yaml", "no such competition file"),  # a path that is not there
    ],
)
def test_unknown_competition(name, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=message):
        load_competition(name)


def test_rules_are_frozen():
    with pytest.raises(AttributeError):
        load_competition("aimo3").max_answer = 1
    assert isinstance(load_competition("aimo3"), Competition)
