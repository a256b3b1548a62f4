"""Files of weights: every container, both readers, damage, malice, and what does not fit."""

import contextlib
import importlib.util
import json
import os
import pickle
import struct
import sys
import types
import zipfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrobust import models
from jaxrobust.models._layers import Layers
from jaxrobust.models._preact_resnet import PreActResNet
from jaxrobust.models._resnet import ResNet
from tests.conftest import GOLDEN
from tests.models.quick import assert_close, quick

FORMATS = GOLDEN / "zoo" / "formats"
ONES = (1, 1, 1, 1)
NETWORKS = {
    "resnet": ResNet(10, ONES, False, 4),
    "preact": PreActResNet(10, ONES, False, 4, "raw", False),
    "engstrom": ResNet(10, ONES, True, 4, models.CIFAR10_MEAN, (0.2023, 0.1994, 0.2010)),
    "score_swish": PreActResNet(
        width=3,
        shortcut="raw_3x3",
        mean=models.CIFAR10_MEAN,
        std=models.CIFAR10_STD,
        layers=Layers("silu", "same"),
    ),
}
FILES = {
    "resnet_flat.pt": "resnet",
    "resnet_flat_legacy.pt": "resnet",
    "resnet_module_prefix.pt": "resnet",
    "resnet_state_dict_module.pth.tar": "resnet",
    "resnet_model_robustness.pt": "resnet",
    "preact_last_best.pt": "preact",
    "preact.safetensors": "preact",
    "score_weights-best.pt": "score_swish",
    "engstrom_no_mu_sigma.pt": "engstrom",
}


def stored(network):
    """The state dict that the files of a network hold, from its golden file."""
    with np.load(FORMATS / f"{network}.npz") as data:
        return {key[3:]: data[key] for key in data if key.startswith("sd/")}


@pytest.fixture
def without_torch(monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if name == "torch" else find(name, *a)
    )


def assert_equal(actual, expected):
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    jax.tree.map(np.testing.assert_array_equal, actual, expected)


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("reader", ["ours", "torch"])
def test_every_container_gives_the_same_weights(request, file, reader):
    if reader == "torch":
        pytest.importorskip("torch")
    else:
        request.getfixturevalue("without_torch")
    model = NETWORKS[FILES[file]]
    variables = models.load_torch_checkpoint(FORMATS / file, model)
    assert_equal(variables, models.from_torch_state_dict(stored(FILES[file]), model))


@pytest.mark.parametrize("network", NETWORKS)
def test_loaded_networks_compute_what_pytorch_computes(network):
    file = next(file for file, name in FILES.items() if name == network)
    variables = models.load_torch_checkpoint(FORMATS / file, NETWORKS[network])
    with np.load(FORMATS / f"{network}.npz") as data:
        logits = quick(NETWORKS[network].apply)(variables, jnp.asarray(data["x"]))
        assert_close(logits, data["logits"], 1e-5)


def test_another_entry_can_be_asked_for():
    path, model = FORMATS / "score_weights-best.pt", NETWORKS["score_swish"]
    raw = models.load_torch_checkpoint(path, model, entry="unaveraged_model_state_dict")
    averaged = models.load_torch_checkpoint(path, model)
    assert (raw["params"]["dense"]["kernel"] != averaged["params"]["dense"]["kernel"]).any()
    with pytest.raises(ValueError, match=r"entry must be one of \['model_state_dict', .*'best'"):
        models.load_torch_checkpoint(path, model, entry="best")


# --- A file of our own making ---------------------------------------------------------------------


def atom(value):
    """The instructions that push a plain value."""
    return pickle.dumps(value, 2)[2:-1]


def name(module, attribute):
    return f"c{module}\n{attribute}\n".encode()


def tensor(key="0", size=4, offset=0, shape=(2, 2), strides=(2, 1), storage="FloatStorage"):
    """The instructions that rebuild a tensor, as torch.save writes them."""
    where = [atom("storage"), name("torch", storage), atom(key), atom("cpu"), atom(size)]
    parts = [b"(" + b"".join(where) + b"tQ", atom(offset), atom(shape), atom(strides), b"\x89"]
    hooks = name("collections", "OrderedDict") + b")R"
    return name("torch._utils", "_rebuild_tensor_v2") + b"(" + b"".join(parts) + hooks + b"tR"


def mapping(**items):
    pairs = b"".join(atom(key) + value for key, value in items.items())
    return b"}(" + pairs + b"u"


FOUR = np.arange(4, dtype=np.float32)


def zipped(path, program, data=FOUR):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x/data.pkl", b"\x80\x02" + program + b".")
        archive.writestr("x/data/0", data.tobytes())
    return path


def legacy(path, program):
    """The older stream: magic number, version, system, object, keys, storages."""
    head = [pickle.dumps(v, 2) for v in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True})]
    data = struct.pack("<q", 4) + FOUR.tobytes()
    body = b"\x80\x02" + program + b"." + pickle.dumps(["0"], 2) + data
    path.write_bytes(b"".join(head) + body)
    return path


def safetensors(path, **arrays):
    header, data = {"__metadata__": {"format": "pt"}}, b""
    for key, array in arrays.items():
        kinds = {"float32": "F32", "float16": "F16", "bfloat16": "BF16", "int64": "I64"}
        place = [len(data), len(data) + array.nbytes]
        kind = kinds[array.dtype.name]
        header[key] = {"dtype": kind, "shape": list(array.shape), "data_offsets": place}
        data += array.tobytes()
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


CONTAINERS = (zipped, legacy)


@pytest.mark.parametrize("container", CONTAINERS)
def test_views_of_a_storage(container, tmp_path, without_torch):
    program = mapping(
        whole=tensor(),
        transposed=tensor(strides=(1, 2)),
        part=tensor(offset=1, shape=(2,), strides=(2,)),
        repeated=tensor(shape=(3, 4), strides=(0, 1)),
        scalar=tensor(offset=3, shape=(), strides=()),
        empty=tensor(shape=(0, 2), strides=(2, 1)),
        plain=atom([1, 2.5, "a", None, True, (3,)]),
    )
    read = models.read_torch_checkpoint(container(tmp_path / "x.pt", program))
    assert read["whole"].tolist() == [[0, 1], [2, 3]]
    assert read["transposed"].tolist() == [[0, 2], [1, 3]]
    assert read["part"].tolist() == [1, 3]
    assert read["repeated"].tolist() == [[0, 1, 2, 3]] * 3
    assert read["scalar"].shape == ()
    assert read["scalar"] == 3
    assert read["empty"].shape == (0, 2)
    assert read["plain"] == [1, 2.5, "a", None, True, [3]]
    assert read["whole"].dtype == np.float32
    read["whole"][0, 0] = 5  # a copy of its own
    assert read["part"].tolist() == [1, 3]


@pytest.mark.parametrize("container", CONTAINERS)
def test_a_small_file_never_takes_much_memory_or_time(container, tmp_path, without_torch):
    """Elements that repeat, and lists that share their items."""
    wide = mapping(a=tensor(shape=(10**6, 10**6), strides=(0, 0)))
    with pytest.raises(ValueError, match="more than 10 times the bytes of the file"):
        models.read_torch_checkpoint(container(tmp_path / "x.pt", wide))
    shared = []
    for _ in range(60):  # 2^60 items, one list each time
        shared = [shared, shared]
    read = models.read_torch_checkpoint(
        container(tmp_path / "x.pt", mapping(a=atom(shared), t=tensor()))
    )
    assert read["a"][0] is read["a"][1]


def test_a_compressed_zip_is_refused(tmp_path, without_torch):
    path = zipped(tmp_path / "x.pt", mapping(a=tensor()))
    with zipfile.ZipFile(path) as there, zipfile.ZipFile(tmp_path / "y.pt", "w") as archive:
        for entry in there.infolist():
            archive.writestr(entry.filename, there.read(entry), zipfile.ZIP_DEFLATED)
    with pytest.raises(ValueError, match="a compressed zip file"):
        models.read_torch_checkpoint(tmp_path / "y.pt")


def test_many_tensors_in_the_same_bytes_are_refused(tmp_path):
    path = safetensors(tmp_path / "x.safetensors", **{f"n{n}": FOUR for n in range(400)})
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    size = 100 * 400
    for key, entry in header.items():
        if key != "__metadata__":
            entry.update(shape=[size // 4], data_offsets=[0, size])
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(size))
    with pytest.raises(ValueError, match="more than 10 times the bytes of the file"):
        models.read_torch_checkpoint(path)


def test_types_of_elements(tmp_path, without_torch):
    half = np.array([1.5, -2], np.float16)
    brain = jnp.array([1.5, -2], jnp.bfloat16)
    program = mapping(a=tensor(size=2, shape=(2,), strides=(1,), storage="HalfStorage"))
    assert models.read_torch_checkpoint(zipped(tmp_path / "h.pt", program, half))["a"].tolist() == [
        1.5,
        -2,
    ]
    program = mapping(a=tensor(size=2, shape=(2,), strides=(1,), storage="BFloat16Storage"))
    read = models.read_torch_checkpoint(zipped(tmp_path / "b.pt", program, np.asarray(brain)))["a"]
    assert read.astype(np.float32).tolist() == [1.5, -2]
    arrays = {"h": half, "b": np.asarray(brain), "n": np.array(7), "e": np.zeros((0, 2), "f4")}
    read = models.read_torch_checkpoint(safetensors(tmp_path / "s.pt", **arrays))
    for key, array in arrays.items():
        np.testing.assert_array_equal(read[key], array)


# --- Files that want more than to be read ---------------------------------------------------------


class Evil:
    """Pickles as a call that leaves a mark."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


def raw(path, program):
    path.write_bytes(b"\x80\x02" + program + b".")
    return path


@pytest.mark.parametrize("container", [*CONTAINERS, raw])
def test_nothing_is_executed(container, tmp_path):
    mark = tmp_path / "executed"
    program = mapping(state_dict=atom(Evil(mark)))
    path = container(tmp_path / "x.pt", program)
    with pytest.raises(ValueError, match=r"x.pt: refused: it asks for posix.mkdir, which weights"):
        models.load_torch_checkpoint(path, models.wide_resnet())
    assert not mark.exists()
    pickle.loads(b"\x80\x02" + program + b".")  # the same pickle does it elsewhere
    assert mark.exists()


@pytest.mark.parametrize(
    ("module", "attribute"),
    [
        ("builtins", "eval"),
        ("builtins", "getattr"),
        ("torch", "load"),
        ("torch._utils", "__dict__"),
        ("torch.nn.modules.container", "Sequential"),
        ("argparse", "Namespace"),
        ("numpy._core.multiarray", "scalar"),
        ("jaxrobust.models._torch_pickle", "_tensor"),
        ("collections", "OrderedDict.fromkeys"),
    ],
)
def test_other_names_are_refused(module, attribute, tmp_path, without_torch):
    path = zipped(tmp_path / "x.pt", mapping(a=tensor(), b=name(module, attribute)))
    with pytest.raises(ValueError, match=f"refused: it asks for {module}.{attribute}, "):
        models.read_torch_checkpoint(path)


HOSTILE = {
    "an attribute of a known name": name("torch", "Size") + atom({"name": "x"}) + b"b",
    "an attribute of a tensor": tensor() + atom((None, {"offset": 10**9})) + b"b",
    "an instance of a known name": name("torch", "Size") + b")\x81",
    "an unknown call": name("torch._tensor", "_rebuild_from_type_v2") + b"(NN)tR",
    "beyond the storage": tensor(offset=1),
    "before the storage": tensor(offset=-1),
    "backwards": tensor(offset=3, shape=(2,), strides=(-1,)),
    "a shape without strides": tensor(shape=(2,), strides=()),
    "a shape of text": tensor(shape=("2",), strides=(1,)),
    "a larger storage than there is": tensor(size=10**12, shape=(10**9,), strides=(1,)),
    "no such storage": tensor(key="7"),
    "a path out of the archive": tensor(key="../../x/data.pkl"),
    "memory for a huge memo": b"Nr\xff\xff\xff\x7f",
    "memory for a huge array": b"\x96" + struct.pack("<Q", 1 << 40),
    "a huge string": b"X" + struct.pack("<I", 0xFFFFFFF0),
    "a class of the old protocol": b"(cos\nmkdir\no",
}


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize("what", HOSTILE)
def test_hostile_pickles_are_damaged_files(container, what, tmp_path, without_torch):
    path = container(tmp_path / "x.pt", mapping(a=HOSTILE[what]))
    with pytest.raises(ValueError, match=r"x.pt: (damaged|refused)"):
        models.read_torch_checkpoint(path)
    # Nothing of it stays: the next file is read as ever.
    test_views_of_a_storage(container, tmp_path, None)


def test_a_dict_inside_itself(tmp_path, without_torch):
    path = zipped(tmp_path / "x.pt", b"}q\x00(" + atom("model") + b"h\x00u")
    with pytest.raises(ValueError, match="no weights at the usual places"):
        models.load_torch_checkpoint(path, models.wide_resnet())


@pytest.mark.parametrize("file", ["resnet_flat.pt", "resnet_flat_legacy.pt", "preact.safetensors"])
def test_damaged_files_have_one_clear_error(file, tmp_path, without_torch):
    whole = (FORMATS / file).read_bytes()
    model, path = NETWORKS[FILES[file]], tmp_path / "cut"
    rng = np.random.default_rng(0)
    for length in (0, 1, 8, 9, 100, *rng.integers(100, len(whole) - 1, 12)):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match="cut: damaged, or not a file of weights") as caught:
            models.load_torch_checkpoint(path, model)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("file", ["resnet_flat.pt", "resnet_flat_legacy.pt", "preact.safetensors"])
def test_altered_bytes_never_surprise(file, tmp_path, without_torch):
    whole, path = (FORMATS / file).read_bytes(), tmp_path / "altered"
    rng = np.random.default_rng(0)
    for _ in range(60):
        altered = bytearray(whole)
        for place in rng.integers(0, 6000, rng.choice([1, 4])):
            altered[place] = rng.integers(256)
        path.write_bytes(altered)
        # Read, or refused with the one error that there is.
        with contextlib.suppress(ValueError):
            models.read_torch_checkpoint(path)


def test_files_of_another_kind(tmp_path, without_torch):
    np.savez(tmp_path / "x.npz", a=np.zeros(2))
    for path in (tmp_path / "x.npz", FORMATS.parent.parent / "zoo" / "rb_resnet18.npz"):
        with pytest.raises(ValueError, match=r"without data.pkl: torch.save did not write it"):
            models.read_torch_checkpoint(path)
    with pytest.raises(ValueError, match="there is no file .*nowhere.pt"):
        models.load_torch_checkpoint(tmp_path / "nowhere.pt", models.wide_resnet())
    (tmp_path / "x.txt").write_text("weights are elsewhere")
    with pytest.raises(ValueError, match="neither safetensors nor written by torch.save"):
        models.read_torch_checkpoint(tmp_path / "x.txt")


# --- PyTorch, where it is installed ---------------------------------------------------------------


class Array(np.ndarray):
    def detach(self):
        return self

    def numpy(self):
        return np.asarray(self)


def fake_torch(monkeypatch, version, load):
    torch = types.ModuleType("torch")
    torch.__spec__ = importlib.util.spec_from_loader("torch", None)
    torch.__version__, torch.load = version, load
    torch.Tensor, torch.bfloat16 = Array, "bfloat16"
    monkeypatch.setitem(sys.modules, "torch", torch)


def test_pytorch_reads_weights_only(monkeypatch):
    asked = []

    def load(path, **options):
        asked.append(options)
        return {"a": np.ones(2).view(Array)}

    fake_torch(monkeypatch, "2.6.0+cpu", load)
    read = models.read_torch_checkpoint(FORMATS / "resnet_flat.pt")
    assert read["a"].tolist() == [1, 1]
    assert asked == [{"map_location": "cpu", "weights_only": True}]


@pytest.mark.parametrize("version", ["2.5.1", "2.6.0"])
def test_our_reader_takes_over_where_pytorch_is_unsafe_or_fails(monkeypatch, version):
    def load(path, **options):
        assert version != "2.5.1", "an unsafe version is not used"
        raise pickle.UnpicklingError("a long story")

    fake_torch(monkeypatch, version, load)
    assert "linear.bias" in models.read_torch_checkpoint(FORMATS / "resnet_flat.pt")


# --- Weights that do or do not fit ----------------------------------------------------------------


def test_every_misfit_is_named():
    state = stored("resnet")
    del state["bn1.running_var"], state["layer2.0.conv1.weight"]
    state["linear.weight"] = np.zeros((100, 32), np.float32)
    state["fc.bias"] = state["linear.bias"]
    with pytest.raises(ValueError, match="the weights do not fit the network") as caught:
        models.from_torch_state_dict(state, NETWORKS["resnet"], source="here.pt")
    assert str(caught.value) == (
        "here.pt: the weights do not fit the network; "
        "2 missing: bn1.running_var, layer2.0.conv1.weight; 1 unexpected: fc.bias; "
        "1 misshapen: linear.weight (100, 32) instead of (10, 32)"
    )


@pytest.mark.parametrize(
    "prefix", ["module.", "module.0.", "module.1.", "model.", "module.model.", "_orig_mod."]
)
def test_prefixes_of_wrappers(prefix):
    state = {f"{prefix}{key}": value for key, value in stored("preact").items()}
    variables = models.from_torch_state_dict(state, NETWORKS["preact"])
    assert_equal(variables, models.from_torch_state_dict(stored("preact"), NETWORKS["preact"]))


def test_a_prefix_inside_a_key_stays():
    state = {key.replace("conv1", "module.conv1"): v for key, v in stored("resnet").items()}
    with pytest.raises(ValueError, match=r"unexpected: .*layer1.0.module.conv1.weight"):
        models.from_torch_state_dict(state, NETWORKS["resnet"])


def test_unused_parts_are_skipped():
    unused = {
        "sub_block1.layer.0.conv1.weight": np.zeros((4, 4, 3, 3)),
        "module.attacker.model.conv1.weight": np.zeros(3),
        "n_averaged": np.array(5),
        "bn1.num_batches_tracked": np.array(3),
    }
    state = stored("resnet")
    variables = models.from_torch_state_dict({**unused, **state}, NETWORKS["resnet"])
    assert_equal(variables, models.from_torch_state_dict(state, NETWORKS["resnet"]))
    with pytest.raises(ValueError, match=r"unexpected: sub_block2.conv.weight"):
        models.from_torch_state_dict({"sub_block2.conv.weight": 0, **state}, NETWORKS["resnet"])


@pytest.mark.parametrize("averaged", ["ema_state_dict", "model_ema", "ema", "last"])
def test_averaged_weights_come_first(averaged, tmp_path, without_torch):
    state = mapping(**{"linear.bias": tensor()})
    decoy = mapping(**{"fc.bias": tensor()})
    program = mapping(state_dict=decoy, **{averaged: state}, best=decoy, epoch=atom(3))
    with pytest.raises(ValueError, match=r"misshapen: linear.bias \(2, 2\) instead of \(10,\)"):
        models.load_torch_checkpoint(zipped(tmp_path / "x.pt", program), NETWORKS["resnet"])


def test_normalisation_in_the_file_must_be_the_networks():
    state, model = stored("engstrom"), NETWORKS["engstrom"]
    for key in ("module.0.mean", "module.normalizer.new_mean"):
        same = {key: state["mu"], **{k: v for k, v in state.items() if k != "mu"}}
        models.from_torch_state_dict(same, model)
    with pytest.raises(
        ValueError,
        match=r"sigma is \(0.2023, 0.1994, 0.201\), the network's std is \(1.0,\): "
        r"build the network with std=\(0.2023, 0.1994, 0.201\)",
    ):
        models.from_torch_state_dict(state, model.clone(std=(1.0,)))


def test_one_key_under_two_names():
    state = stored("resnet")
    with pytest.raises(ValueError, match=r"two keys stand for linear.bias, .* module.linear.bias"):
        models.from_torch_state_dict(
            {**state, "module.linear.bias": state["linear.bias"]}, NETWORKS["resnet"]
        )


def test_a_network_without_published_weights():
    with pytest.raises(ValueError, match=r"model must be one of WideResNet, .*; .* MLP are unkn"):
        models.from_torch_state_dict({}, models.mlp())


def test_files_without_weights(tmp_path, without_torch):
    path = zipped(tmp_path / "x.pt", mapping(epoch=atom(3), optimizer=mapping(lr=atom(0.1))))
    with pytest.raises(ValueError, match=r"it holds a dict of \['epoch', 'optimizer'\]"):
        models.load_torch_checkpoint(path, models.wide_resnet())
    path = zipped(tmp_path / "y.pt", atom([1, 2]))
    with pytest.raises(ValueError, match=r"it holds a list"):
        models.load_torch_checkpoint(path, models.wide_resnet())


def test_half_precision_weights_become_float32(tmp_path):
    state = {k: v.astype(np.float16) for k, v in stored("preact").items() if "num" not in k}
    path = safetensors(tmp_path / "half.safetensors", **state)
    variables = models.load_torch_checkpoint(path, NETWORKS["preact"])
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype(jnp.float32)}
    assert_equal(variables, models.from_torch_state_dict(state, NETWORKS["preact"]))


def test_safetensors_that_lie(tmp_path):
    path = safetensors(tmp_path / "x", a=np.arange(4, dtype=np.float32))
    whole = path.read_bytes()
    for true, false in (
        (b"[0, 16]", b"[0, 12]"),
        (b"[0, 16]", b"[4, 20]"),
        (b"[0, 16]", b"[-4,12]"),
        (b'"F32"', b'"F99"'),
        (b'"shape": [4]', b'"shape": 1.5'),
    ):
        assert len(true) == len(false)
        path.write_bytes(whole.replace(true, false))
        with pytest.raises(ValueError, match="x: damaged"):
            models.read_torch_checkpoint(path)


def test_safetensors_that_name_a_tensor_twice(tmp_path):
    """JSON readers keep the last one, so which weights are read would be a matter of taste."""
    entry = '"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}'
    text = f"{{{entry}, {entry}}}".encode()
    path = tmp_path / "twice.safetensors"
    path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(4))
    with pytest.raises(ValueError, match="damaged.*a is there twice"):
        models.read_torch_checkpoint(path)


@pytest.mark.parametrize(
    ("change", "shown"),
    [
        (lambda w: (100 * w).astype(np.int8), "1 not floating point: conv1.weight int8"),
        (lambda w: w.astype(np.complex64), "1 not floating point: conv1.weight complex64"),
        (lambda w: np.where(np.arange(w.size).reshape(w.shape) == 1, np.nan, w), "1 not finite"),
        (lambda w: np.ma.masked_array(w, w > 0), "without a mask"),
    ],
)
def test_weights_that_are_no_numbers_are_named(change, shown):
    """Quantised weights without their scales, imaginary parts and NaN made a silent network."""
    state = {k: v for k, v in stored("preact").items() if "num" not in k}
    changed = state | {"conv1.weight": change(state["conv1.weight"])}
    with pytest.raises(ValueError, match=shown):
        models.from_torch_state_dict(changed, NETWORKS["preact"])
