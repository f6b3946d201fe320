"""What users of Hydra are used to: it works here, or the error names what does the same."""

from pathlib import Path

import pytest

from engine.config.compose import compose, expand
from engine.core.errors import ConfigError
from engine.schemas import RunSpec


def spec(*overrides: str, config_dir: Path | None = None) -> RunSpec:
    return compose(["provider=simulated", *overrides], config_dir).spec


def refusal(*overrides: str, config_dir: Path | None = None) -> str:
    with pytest.raises(ConfigError) as caught:
        spec(*overrides, config_dir=config_dir)
    return str(caught.value)


def write(folder: Path, name: str, text: str) -> Path:
    file = folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return file


PRESET = "# @package _global_\ndefaults:\n  - override /policy/retry: patient\nseed: 9\n"


@pytest.mark.parametrize(
    "typed", ["+experiment=fast", "experiment=fast", "+experiment=[fast]", "+experiment=team/fast"]
)
def test_a_preset_sets_several_groups(typed: str, tmp_path: Path) -> None:
    write(tmp_path, "experiment/fast.yaml", PRESET)
    write(tmp_path, "experiment/team/fast.yaml", PRESET)
    made = spec(typed, config_dir=tmp_path)
    assert (made.seed, made.policy.retry) == (9, spec("policy/retry=patient").policy.retry)


@pytest.mark.parametrize("plus", ["", "+", "++"])
def test_a_search_path_is_followed_with_or_without_a_plus(plus: str, tmp_path: Path) -> None:
    write(tmp_path, "model/mine.yaml", "name: mine\n")
    assert spec(f"{plus}hydra.searchpath=[file://{tmp_path}]", "model=mine").model.name == "mine"


@pytest.mark.slow
def test_a_preset_of_config_yaml_can_be_chosen_with_or_without_a_plus(tmp_path: Path) -> None:
    write(tmp_path, "experiment/fast.yaml", PRESET)
    shipped = (Path(__file__).parents[2] / "conf" / "config.yaml").read_text()
    write(tmp_path, "config.yaml", shipped.replace("  - _self_\n", "  - _self_\n  - experiment: null\n"))
    assert [spec(typed, config_dir=tmp_path).seed for typed in ("experiment=fast", "+experiment=fast")] == [9, 9]


def test_presets_are_swept(tmp_path: Path) -> None:
    write(tmp_path, "experiment/1.yaml", PRESET)
    write(tmp_path, "experiment/2.yaml", PRESET.replace("9", "8"))
    assert [spec(*cell, config_dir=tmp_path).seed for cell in expand(["+experiment=1,2"], tmp_path)] == [9, 8]


def test_a_preset_without_its_header_or_its_file_is_told_so(tmp_path: Path) -> None:
    file = write(tmp_path, "experiment/fast.yaml", "seed: 9\n")
    text = refusal("+experiment=fast", config_dir=tmp_path)
    assert str(file) in text
    assert "# @package _global_" in text
    assert "did you mean fast" in refusal("+experiment=fats", config_dir=tmp_path)


@pytest.mark.parametrize("name", ["team/mine", "3", "007", "1e3", "true", "0x1f", "2024-01-01", "1.5", "a.b", "team/7"])
def test_an_option_may_have_any_name_and_folder(name: str, tmp_path: Path) -> None:
    write(tmp_path, f"model/{name}.yaml", "name: mine\n")
    assert spec(f"model={name}", config_dir=tmp_path).model.name == "mine"
    write(tmp_path, "config.yaml", (Path(__file__).parents[2] / "conf" / "config.yaml").read_text().replace(
        "model: default", f"model: {name}"))  # fmt: skip
    assert spec(config_dir=tmp_path).model.name == "mine"


def test_an_option_in_a_folder_of_a_sub_group(tmp_path: Path) -> None:
    write(tmp_path, "policy/retry/team/mine.yaml", "defaults: [/policy/retry/default@_here_]\nmax_retries: 17\n")
    assert spec("policy/retry=team/mine", config_dir=tmp_path).policy.retry.max_retries == 17
    assert "policy=retry/team/mine" in refusal("policy=retry/team/mine", config_dir=tmp_path)


@pytest.mark.parametrize("typed", ["~policy/retry", "~policy.retry", "policy/retry=null", "~policy/retry=default"])
def test_a_group_taken_away_is_off(typed: str) -> None:
    assert spec(typed).policy.retry == spec("policy/retry=off").policy.retry


@pytest.mark.parametrize("group", ["model", "workload", "policy/route", "telemetry"])
def test_a_group_that_every_run_has_cannot_be_taken_away(group: str) -> None:
    assert f"expected one of {group}, which can't be off" in refusal(f"~{group}")


SETTINGS = {
    "hydra.run.dir": "output.dir=PATH",
    "hydra.sweep.dir": "output.root=PATH",
    "hydra.sweep.subdir": "output.root=PATH",
    "hydra.job.chdir": "working directory",
    "hydra.job.name": "output.dir=PATH",
    "hydra.job.num": "leave it out",
    "hydra.verbose": "telemetry.log_level=debug",
    "hydra.sweeper.params": "-m",
    "hydra.launcher.n_jobs": "policy.queue.concurrency",
    "hydra.callbacks.mine": "library",
}


@pytest.mark.parametrize(("key", "instead"), SETTINGS.items())
@pytest.mark.parametrize("plus", ["", "+", "++"])
def test_a_setting_of_hydra_is_refused_with_what_does_the_same(key: str, instead: str, plus: str) -> None:
    text = refusal(f"{plus}{key}=x")
    assert text.startswith(f"{key}: got x")
    assert instead in text


@pytest.mark.parametrize(("key", "instead"), SETTINGS.items())
@pytest.mark.parametrize("name", ["config", "experiment/fast"])
def test_a_setting_of_hydra_in_a_file_is_refused_too(key: str, instead: str, name: str, tmp_path: Path) -> None:
    _, group, *rest = key.split(".")
    body = f"hydra:\n  {group}: {{{rest[0]}: x}}\n" if rest else f"hydra:\n  {group}: x\n"
    file = write(tmp_path, f"{name}.yaml", f"# @package _global_\ndefaults: [/provider: simulated]\n{body}")
    text = refusal(*(["+experiment=fast"] if "fast" in name else []), config_dir=tmp_path)
    assert str(file) in text
    assert instead in text


@pytest.mark.parametrize(
    ("typed", "files"),
    [
        (["hydra/launcher=joblib"], {}),
        (["hydra/sweeper=optuna"], {}),
        (["hydra/job_logging=colorlog"], {}),
        (["+hydra/callbacks=mine"], {"hydra/callbacks/mine.yaml": "a: 1\n"}),
        (
            ["+experiment=x"],
            {"experiment/x.yaml": "# @package _global_\ndefaults: [override /hydra/launcher: joblib]\n"},
        ),
        (["+experiment=x"], {"experiment/x.yaml": "# @package hydra.run\ndir: x\n"}),
        (["policy/retry=x"], {"policy/retry/x.yaml": "# @package hydra\nrun: {dir: x}\n"}),
        (["policy/retry=x"], {"policy/retry/x.yaml": "# @package _global_\nhydra: {searchpath: [/tmp]}\n"}),
        ([], {"hydra/launcher/basic.yaml": "a: 1\n", "config.yaml": "defaults: [override hydra/launcher: basic]\n"}),
    ],
)
def test_launchers_sweepers_and_the_like_are_refused(typed: list[str], files: dict[str, str], tmp_path: Path) -> None:
    for name, text in files.items():
        write(tmp_path, name, text)
    text = refusal(*typed, config_dir=tmp_path)
    assert "setting of Hydra that has no effect here" in text
    assert "Fix:" in text


@pytest.mark.parametrize("written", ["1e3", "0123", "695e0514", "1_000", "0x1f", ".5", "inf", "12:30", "no", "1.50"])
def test_a_hint_has_the_text_that_was_written(written: str, tmp_path: Path) -> None:
    file = write(tmp_path, "model/a.yaml", f"name: {written}\n")
    said = name_or_refusal("model=a", config_dir=tmp_path)
    assert said == written or (f"model.name='\"{written}\"'" in said and str(file) in said)
    said = name_or_refusal("model=remote", f"model.name={written}")
    assert said == written or f"model.name='\"{written}\"'" in said


@pytest.mark.parametrize("written", ["1e3", "695e0514", "1_000", ".5", "inf"])
@pytest.mark.parametrize("space", ["", " "])
def test_a_hint_has_the_text_that_was_written_inside_a_list(written: str, space: str) -> None:
    entry = "{provider: simulated, model: {use: remote, name: NAME}}".replace(": ", f":{space}")
    assert f"fallbacks[0].model.name='\"{written}\"'" in refusal(f"fallbacks=[{entry.replace('NAME', written)}]")


def name_or_refusal(*overrides: str, config_dir: Path | None = None) -> str:
    try:
        return spec(*overrides, config_dir=config_dir).model.name
    except ConfigError as error:
        return str(error)
