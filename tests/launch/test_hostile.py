"""Names from a study are untrusted: they reach the server as they are, and nothing else happens."""

from __future__ import annotations

import json
import re
import time
from dataclasses import replace
from itertools import cycle

import pytest

from autotune.files import OutFile
from autotune.launch.document import plan_document, read_plan
from autotune.launch.files import write_export
from autotune.launch.quoting import check_image, check_launch_text, dns_label, one_line
from autotune.launch.reading.parse import parse_command, split_command
from autotune.launch.targets.container import mounted_model
from autotune.launch.targets.registry import find_target, target_files
from autotune.launch.targets.scripts import bench_script, script_files
from autotune.text.safe_yaml import read_yaml
from costmodel.arch import load_model
from costmodel.errors import InputError
from tests.launch import manifests
from tests.launch.helpers import launched, plans, run_script, service
from tests.launch.manifests import documents, kubelet, schema

HOSTILE = (
    "/models/with space/and 'quote'",
    'a"b$(touch owned)`touch owned`',
    "line\nbreak; touch owned #",
    "../../etc/passwd",
    "$HOME/${NODE_0}/\\",
    "*? [x] {a,b} ~ ! & | > owned",
    "ünïcödé 模型",
    "# not a comment",
    "%s %n \t tab",
    "=cmd|' /C calc'!A0",
    "+1",
    "@x",
    "\r; touch owned",
    "</script><script>touch owned</script>",
    "[x](javascript:touch) `` ` ``",
)


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_reach_the_server_unchanged(name, tmp_path):
    """Run by a real shell, every script hands over the model's name as one argument, and runs nothing else."""
    arch = load_model("deepseek-v3")
    for engine in ("vllm", "sglang", "trtllm"):
        candidate = next(c for c in plans("deepseek-v3", engine, 16) if c.layout.replicas == 1)
        plan = launched(service(candidate, arch, model=name, name=name))
        text = script_files(plan)["replica0-node0.sh"].text
        assert name in run_script(text, tmp_path / engine)


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_stay_inside_their_files(name):
    """READMEs keep a name on its line, JSON holds it as it is, file names do not hold it at all."""
    arch = load_model("deepseek-v3")
    candidate = next(c for c in plans("deepseek-v3", "trtllm", 16) if c.layout.replicas == 1)
    plan = launched(service(candidate, arch, model=name, name=name))
    files = target_files(find_target("trtllm"), plan, current=None)
    assert json.loads(files["plan.json"].text)["model"] == name
    assert files["README.md"].text.splitlines()[0].startswith("# ")
    assert all(name not in file for file in files)
    assert "\n" not in one_line(name)


def interpolated(text: str, env: dict[str, str]) -> str:
    """Compose's interpolation of `$$`, `$NAME` and `${NAME}` (compose-spec, interpolation)."""
    return re.sub(
        r"\$(?:(\$)|\{([A-Za-z_]\w*)[^}]*\}|([A-Za-z_]\w*))",
        lambda m: "$" if m[1] else env.get(m[2] or m[3], ""),
        text,
    )


@pytest.mark.parametrize(("name", "engine"), list(zip(HOSTILE, cycle(["vllm", "sglang", "trtllm"]), strict=False)))
def test_hostile_names_reach_containers_unchanged(name, engine):
    """As Compose and Kubernetes expand them, server and benchmark get the name whole, and it is nothing else."""
    arch = load_model("llama-3.1-70b")
    plan = launched(service(plans("llama-3.1-70b", engine, 8)[0], arch, model=name, name=name))
    for target, expand in (("compose", interpolated), ("k8s", kubelet)):
        files = target_files(find_target(target), plan, current=None)
        texts = [d for n, f in files.items() if n.endswith(".yaml") and n not in plan.files for d in documents(f.text)]
        words = [w for d in texts for c in commands(d) for w in c]
        assert [expand(w, {"HOME": "wrong", "NODE_0": "wrong"}) for w in words].count(name) >= 2
        for document in texts:
            schema("compose").validate(document) if target == "compose" else manifests.check(document)
        assert files["README.md"].text.splitlines()[0].startswith("# ")


def commands(node):
    """Word lists of every container of a document."""
    if isinstance(node, dict):
        yield from (node[k] for k in ("command", "args", "entrypoint") if isinstance(node.get(k), list))
        for value in node.values():
            yield from commands(value)
    elif isinstance(node, list):
        for value in node:
            yield from commands(value)


@pytest.mark.parametrize("name", HOSTILE)
def test_dynamo_refuses_names_that_its_operator_would_hand_to_a_shell(name):
    """Its operator joins arguments to a shell command: names beyond plain ones are an error, plain ones are not."""
    arch = load_model("llama-3.1-70b")
    candidate = plans("llama-3.1-70b", "vllm", 8)[0]
    with pytest.raises(InputError, match="dynamo_shell_names"):
        target_files(find_target("dynamo"), launched(service(candidate, arch, model=name)), current=None)
    plain = launched(service(candidate, arch, model="/models/llama-3.1_70b and more", name=name))
    (document,) = documents(target_files(find_target("dynamo"), plain, current=None)["dynamographdeployment.yaml"].text)
    manifests.check(document)


@pytest.mark.parametrize("path", ["/", "/etc/..", "../../etc", "/a:b", "/a\nb", "/a/$HOME"])
def test_only_a_plain_path_that_the_user_named_is_mounted(path):
    """No study opens the node's files to a container, and no odd path becomes a mount."""
    arch = load_model("llama-3.1-70b")
    made = service(plans("llama-3.1-70b", "vllm", 8)[0], arch)
    assert mounted_model(replace(made, model=path, model_given=True)) is None
    assert mounted_model(replace(made, model="/models/x", model_given=False)) is None
    assert mounted_model(replace(made, model="/models/x", model_given=True)) == "/models/x"


@pytest.mark.parametrize("image", ["", "a b", "-x", "x;touch owned", "x:${IMAGE}", "x\ny", "x" * 600, "$(id)"])
def test_an_image_is_a_reference_and_nothing_else(image):
    """What Compose, Kubernetes or a shell could take for more is refused."""
    with pytest.raises(InputError, match="must be a container image"):
        check_image(image)


@pytest.mark.parametrize("name", HOSTILE)
def test_the_benchmark_script_hands_hostile_names_on(name, tmp_path):
    """Run by a real shell, `bench.sh` measures the model of that name, and runs nothing else."""
    arch = load_model("deepseek-v3")
    for engine in ("vllm", "sglang", "trtllm"):
        candidate = next(c for c in plans("deepseek-v3", engine, 16) if c.layout.replicas == 1)
        plan = launched(service(candidate, arch, model=name, name=name))
        said = run_script(bench_script(plan), tmp_path / engine)
        assert name in said
        assert str(tmp_path / engine / "result.json") in " ".join(said)


@pytest.mark.parametrize("bad", ["", "  ", "-rm", "--model", "a\x00b", "x" * 5000])
def test_names_that_no_quoting_can_carry_are_refused(bad):
    """Empty, NUL, far too long, or read as an option: an error with its path."""
    with pytest.raises(InputError, match=r"\$\.model: must"):
        check_launch_text("$.model", bad)


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "a/b/c", "..", "", "a\nb", ".hidden", "x/../y"])
def test_no_file_is_written_outside_the_folder(name, tmp_path):
    """A file name that leads elsewhere is refused before anything is written."""
    target = tmp_path / "out"
    with pytest.raises(InputError, match="plain file names only"):
        write_export(target, {"ok.txt": OutFile(text="x"), name: OutFile(text="y")})
    assert list(tmp_path.iterdir()) == []


def test_a_folder_is_written_whole_and_only_over_an_export(tmp_path):
    """New and exported folders are (re)placed with nothing left over; other folders, files and links are refused."""
    target = tmp_path / "out"
    mark = OutFile(text='{"written_by": "autotune export"}')
    write_export(target, {"plan.json": mark, "old.sh": OutFile(text="x", executable=True)})
    assert (target / "old.sh").stat().st_mode & 0o111
    write_export(target, {"plan.json": mark})
    assert sorted(p.name for p in target.iterdir()) == ["plan.json"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out"]
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("years of work")
    (tmp_path / "file").write_text("x")
    (tmp_path / "link").symlink_to(target)
    for name, why in (("mine", "holds other files"), ("file", "is a file"), ("link", "symbolic link")):
        with pytest.raises(InputError, match=why):
            write_export(tmp_path / name, {"plan.json": mark})
    assert (mine / "thesis.txt").read_text() == "years of work"


def test_labels_are_fit_for_kubernetes():
    """Any text becomes a DNS label of at most 40 characters that begins with a letter."""
    for text in (*HOSTILE, "", "123", "-", "A" * 300):
        label = dns_label(text)
        assert label[0].isalpha()
        assert label.replace("-", "").isalnum()
        assert len(label) <= 48
        assert label == label.lower().strip("-")


BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{chr(98 + i)}: &{chr(98 + i)} [{','.join(['*' + chr(97 + i)] * 9)}]\n" for i in range(9)
)
MERGES = "a: &a {k1: 1, k2: 2}\n" + "".join(
    f"{chr(98 + i)}: &{chr(98 + i)}\n  <<: [{','.join(['*' + chr(97 + i)] * 9)}]\n" for i in range(12)
)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("x: !!python/object/apply:os.system ['touch owned']", "could not determine a constructor for the tag"),
        ("x: !custom 1", "could not determine a constructor"),
        ("[" * 5000 + "]" * 5000, "at most 60 levels"),
        ("a: " + "b" * 2_000_000, "at most 1,000,000 characters"),
        ("x: &a\n" + "".join("- *a\n" for _ in range(300)), "at most 200 aliases"),
        (MERGES, "keys into one"),
        ("a: [1, 2", "in line"),
        ("a: 1\n b: 2", "in line"),
        ("x: 9999-99-99", "plain values"),
    ],
)
def test_hostile_yaml_is_refused_quickly(text, why):
    """Tags, depth, size, aliases and merges that multiply: a clear error within a second."""
    start = time.process_time()
    with pytest.raises(InputError, match=why):
        read_yaml(text, "compose.yml")
    assert time.process_time() - start < 2.0


def test_an_alias_bomb_is_bounded(tmp_path):
    """Nine levels of nine aliases, 387 million lists when followed: the walk over them gives up."""
    from autotune.launch.reading.import_plan import import_plan

    path = tmp_path / "bomb.yml"
    path.write_text("services:\n  x: 1\n" + BOMB)
    start = time.process_time()
    with pytest.raises(InputError, match="containers in a plain file"):
        import_plan(str(path))
    assert time.process_time() - start < 3.0


@pytest.mark.parametrize(
    "command",
    [
        "vllm serve m 'unclosed",
        "vllm serve m -tp eight",
        "vllm serve m -tp 0",
        "vllm serve m -tp 99999999999999999999",
        "vllm serve m --eplb-config not-json --enable-eplb",
        "vllm serve m --gpu-memory-utilization 7",
        "python -m sglang.launch_server --model m --tp 8 --attn-dp-size 3",
        "rm -rf /",
        "vllm serve " + "x" * 200_000,
    ],
)
def test_hostile_commands_are_errors_with_a_place(command):
    """What cannot be read is an error, never a traceback and never run."""
    from autotune.launch.reading.import_plan import import_plan

    with pytest.raises(InputError, match=r"must|cannot"):
        import_plan(command)


def test_quoting_survives_being_read_back():
    """A hostile name in a command line is read back as it was."""
    arch = load_model("deepseek-v3")
    candidate = next(c for c in plans("deepseek-v3", "vllm", 8) if c.layout.replicas == 1)
    for name in HOSTILE:
        plan = launched(replace(service(candidate, arch), model=name))
        text = script_files(plan)["replica0-node0.sh"].text
        command = text[text.index("exec ") :]
        if "$" not in name and "\\" not in name:
            assert parse_command(split_command(command)).model == name


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"layout": None}, r"\$\.layout: "),
        ({"layout": {"pp": True}}, r"\$\.layout\.pp: must be a whole number"),
        ({"layout": {"pp": 0}}, r"\$\.layout\.pp: must be at least 1"),
        ({"layout": {"redundant_experts": -1}}, r"\$\.layout\.redundant_experts: must be at least"),
        ({"layout": {"stage_layers": []}}, r"\$\.layout\.stage_layers: must be at least 1"),
        ({"knobs": {"concurrency": "many"}}, r"\$\.knobs\.concurrency: must be a whole number"),
        ({"knobs": {"kv_dtype": 8}}, r"\$\.knobs\.kv_dtype: "),
    ],
)
def test_a_changed_plan_document_is_refused_by_its_path(change, where):
    """What an export wrote and somebody edited: the field that is wrong is named, and a good one is read whole."""
    made = service(plans("llama-3.1-70b", "vllm", 8)[0], load_model("llama-3.1-70b"))
    good = json.loads(json.dumps(plan_document(launched(made), target="vllm")))
    assert read_plan(good, "plan.json") == (made.layout, made.knobs)
    (table, fields) = next(iter(change.items()))
    with pytest.raises(InputError, match=rf"plan\.json: {where}"):
        read_plan(good | {table: None if fields is None else good[table] | fields}, "plan.json")
