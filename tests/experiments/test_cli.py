import sys
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

import saal_fast
from saal_fast.experiments import cli, demo
from saal_fast.experiments.commands import app

SMALL = ["--data", "digits", "--labels", "20", "--pool", "40", "--k", "3"]


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: CliRunner().invoke(app, list(arguments))


def test_demo_runs(run, tmp_path, monkeypatch):
    prepare = demo.prepare
    monkeypatch.setattr(demo, "prepare", lambda settings: prepare(replace(settings, epochs=2, reference_samples=8)))
    result = run("demo", *SMALL)
    assert result.exit_code == 0, result.output
    assert "digits (scikit-learn): 20 labelled samples, 40 in the pool, 359 held out" in result.output
    assert "predicted" in result.output
    written = {path.name for path in (tmp_path / "saal-fast-demo").iterdir()}
    assert written == {"picks.png", "histogram.png", "picks.csv"}


def test_every_option_reaches_the_settings(run, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(demo, "prepare", seen.append)
    monkeypatch.setattr(demo, "run", lambda partition: None)
    options = "--data digits --data-root r --labels 30 --pool 50 --k 4 --rho 0.1 --seed 7 --out o"
    assert run("demo", *options.split(), "--diversity", "kmeans++").exit_code == 0
    assert run("demo").exit_code == 0
    expected = demo.Settings(
        data="digits",
        data_root=Path("r"),
        labels=30,
        pool=50,
        k=4,
        rho=0.1,
        seed=7,
        diversity="kmeans++",
        out=Path("o"),
    )
    assert seen == [expected, demo.Settings()]


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--k", "41"], "k is 41, but the pool holds 40"),
        (["--k", "0"], "k is 0: expected at least 1"),
        (["--labels", "9"], "labels is 9: expected at least one for each of 10 classes"),
        (
            ["--pool", "1800"],
            "pool is 1800, but beside 20 labelled and 359 held-out samples the data hold 1418",
        ),
        (["--rho", "nan"], "rho is nan: expected a finite number >= 0"),
        (["--seed", "-1"], "seed is -1"),
        (["--out", "file"], "cannot write into the folder file"),
        (["--data", "fashion-mnist", "--data-root", "absent"], "the data root is not a folder: absent"),
        (["--data", "fashion-mnist", "--data-root", "."], "apt-get install dataset-fashion-mnist"),
    ],
)
def test_what_cannot_be_done_is_told_in_a_line(run, tmp_path, arguments, complaint):
    (tmp_path / "file").touch()
    result = run("demo", *SMALL, *arguments)
    assert result.exit_code == 2
    assert result.stderr.startswith("saal-fast demo: ")
    assert complaint in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert not result.stdout


@pytest.mark.parametrize(
    "arguments",
    [["--data", "svhn"], ["--diversity", "coreset"], ["--k", "few"], ["--nonsense"]],
)
def test_unknown_options_and_choices_are_refused(run, arguments):
    result = run("demo", *SMALL, *arguments)
    assert result.exit_code == 2
    assert arguments[0] in result.stderr


def test_config_prints_the_configuration(run):
    result = run("config")
    assert result.exit_code == 0
    assert result.stdout == f"{saal_fast.show_config()}\n"


def test_help_names_the_subcommands(run):
    result = run("--help")
    assert result.exit_code == 0
    assert "demo" in result.stdout
    assert "config" in result.stdout


def hide(monkeypatch, package):
    """Make `package` look uninstalled, and what would import it not imported yet."""
    for name in list(sys.modules):
        if name.startswith((f"{package}.", "saal_fast.experiments.demo", "saal_fast.experiments.commands")):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)


@pytest.mark.parametrize("package", ["typer", pytest.param("matplotlib", marks=pytest.mark.slow), "tqdm"])
def test_without_the_extra_the_script_says_what_to_install(tmp_path, monkeypatch, package):
    hide(monkeypatch, package)
    monkeypatch.setattr(sys, "argv", ["saal-fast", "demo", *SMALL, "--out", str(tmp_path)])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert caught.value.code == (f'saal-fast: the package {package} is not installed: pip install "saal-fast[demo]"')


def test_other_missing_modules_are_not_explained_away(monkeypatch):
    hide(monkeypatch, "typer")
    monkeypatch.setattr(cli, "EXTRA_PACKAGES", frozenset({"matplotlib"}))
    with pytest.raises(ModuleNotFoundError, match="typer"):
        cli.main()


def test_the_script_runs_the_app(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["saal-fast", "config"])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert caught.value.code == 0
    assert str(saal_fast.show_config()) in capsys.readouterr().out
