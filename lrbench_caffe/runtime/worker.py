"""The Caffe side of LRBench: one process that owns one Caffe solver and does what its driver asks.

This is the only file that imports caffe. It runs in whatever interpreter pycaffe lives in, Python
2.7 or 3.x, and needs nothing but caffe and numpy, so it imports nothing from the rest of the
package but counting.py and forking.py, which are beside it and need nothing else.

The driver writes requests to the worker's stdin and reads replies from its stdout. The first thing
there is MAGIC, so that the driver can tell a worker from a program that prints something else. A
message is

    4 bytes      length of the header, big-endian
    header       JSON: {"kind": ..., fields..., "arrays": [[name, dtype, shape], ...]}
    raw bytes    the arrays, one after another, C order

What the driver asks, and what comes back:

    (start)                        hello: versions, layer types, what this Caffe can do
    read      message, file        read: a prototxt as Caffe itself reads and upgrades it; before "open"
    log_to    file                 (nothing): the log continues there; before "open"
    check     library, threads,    checked: what is wrong with the BLAS or the fast layers, and where
              measure              it is measured, whether the library's vectors are slow; before "open"
    open      solver file, ...     opened: the nets' parameters, the test nets' blob shapes, layers
    load      snapshot, weights    loaded: the iteration
    replay    passes               progress..., replayed: the training data is at its former position
    run       lrs, stop            losses..., ran: one learning rate for each of the next iterations
    pause     (meanwhile)          the run ends before its next update, a test pass with "cancelled",
                                   a replay with "replayed"
    test      net, passes, heads   batch..., tested: one message for each batch of the test pass
    forward                        forwarded: the training net's loss on its next batch, without an update
    snapshot                       snapshotted
    close                          the process ends

Any request can be answered by "error". A failed CHECK in Caffe ends the process; what Caffe said is
in the log, which is this process's stderr.

"worker.py serve DESCRIPTOR KEY" is a server that has loaded Caffe and forks workers (forking.py) for
drivers that want a process like itself, which they tell by its key. Each worker is as if it were
started: Caffe has computed nothing yet, and the server has neither threads nor a GPU.

Caffe runs the whole training in one ``solver.step``: requests between two stretches of iterations
are answered from inside its on_start callback, exactly where Caffe would run its own test pass. So
Caffe's loss smoothing, its timer and its log are those of ``caffe train``.
"""
from __future__ import division, print_function

import codecs
import ctypes
import gc
import json
import os
import platform
import re
import select
import signal
import struct
import sys
import tempfile
import time

SERVE = "serve"  # the first argument of a server, before its socket's descriptor and its key

if __name__ == "__main__":
    import counting  # it is beside this file
    if sys.argv[1:2] == [SERVE]:
        import forking

PROTOCOL = 3
MAGIC = b"LRBENCH\n"
HEADER = struct.Struct(">I")
CHECK_SECONDS = 120
SLOW = b"-"  # and behind them, where the library's vectors do not pay
BEGUN = b"+"  # what the check's child process writes before each of its two parts
FLUSH_SECONDS = 0.2  # losses are sent at least this often, so that silence means trouble
PR_SET_PDEATHSIG = 1
PRIVATE_TEXT = re.compile(u"([\uef80-\uefff])")
PRIVATE_BYTES = re.compile(b"(\xee[\xbe\xbf][\x80-\xbf])")  # the same characters in UTF-8
# A clock that is not stepped with the wall clock; os.times() has one for Python 2.7.
steady = getattr(time, "monotonic", None) or (lambda: os.times()[4])
BLAS = ("libopenblas", "libmkl_rt", "libmkl_core", "libatlas", "libtatlas", "libsatlas", "libblas", "libblis")


# ---------------------------------------------------------------------------------------------------
# Messages (used by the driver as well)

def pack(kind, arrays=(), **fields):
    """Serialize a message; ``arrays`` are (name, C-contiguous numpy array) pairs."""
    fields["kind"] = kind
    fields["arrays"] = [[name, array.dtype.str, list(array.shape)] for name, array in arrays]
    header = json.dumps(fields).encode("utf-8")
    return b"".join([HEADER.pack(len(header)), header] + [array.tobytes() for _, array in arrays])


def unpack(read):
    """Read one message with ``read(size) -> bytes``; returns (fields, {name: array})."""
    import numpy

    (size,) = HEADER.unpack(read(HEADER.size))
    fields = all_native(json.loads(read(size).decode("utf-8")))
    arrays = {}
    for name, dtype, shape in fields.pop("arrays"):
        dtype = numpy.dtype(dtype)
        count = 1
        for length in shape:
            count *= length
        arrays[name] = numpy.frombuffer(read(count * dtype.itemsize), dtype).reshape(shape)
    return fields, arrays


def _private(data):
    """Each byte of 0x80 to 0xFF as a character U+EF80 to U+EFFF, which Unicode leaves to private use."""
    return b"".join(struct.pack(">H", 0xEF00 | byte) for byte in bytearray(data)).decode("utf-16-be")


codecs.register_error(
    "lrbench", lambda error: (_private(error.object[error.start:error.end]), error.end))


def decode(data):
    """Caffe's bytes as text, whatever they are: ``encode`` gives the same bytes back.

    To Caffe a prototxt is bytes, so comments and names come in any encoding. A byte outside of
    UTF-8 becomes a private character, and so does each byte of such a character in the file itself.
    """
    parts = PRIVATE_BYTES.split(data)
    return u"".join(
        _private(part) if index % 2 else part.decode("utf-8", "lrbench") for index, part in enumerate(parts))


def encode(text):
    """The bytes that ``text`` was decoded from."""
    parts = PRIVATE_TEXT.split(text)
    return b"".join(
        bytes(bytearray([ord(part) & 0xFF])) if index % 2 else part.encode("utf-8")
        for index, part in enumerate(parts))


def native(text):
    """A string of a message as this Python's ``str``, which is what Caffe takes."""
    return text if isinstance(text, str) else text.encode("utf-8")


def all_native(value):
    """A message's fields with every string in them native, the keys too, however deep they lie."""
    if str is not bytes:  # Python 3, where they are
        return value
    if isinstance(value, dict):
        return dict((native(key), all_native(item)) for key, item in value.items())
    if isinstance(value, list):
        return [all_native(item) for item in value]
    return native(value) if isinstance(value, type(u"")) else value


def words_of(error):
    """An exception's words, whatever characters they have."""
    try:
        words = str(error)
    except UnicodeError:  # Python 2.7, where they are outside of ASCII
        words = type(u"")(error)
    return decode(words) if isinstance(words, bytes) else words


def for_caffe(text):
    """A native string as Caffe takes it: with the bytes that it had in Caffe's files."""
    if isinstance(text, bytes):
        return encode(text.decode("utf-8"))
    return encode(text) if PRIVATE_TEXT.search(text) else text


def reason(error):
    """The reason of a failure, as text. Caffe prints what is wrong with a Python layer, which takes the error
    away from Boost.Python: it is where Python keeps what was printed last."""
    printed = getattr(sys, "last_value", None)
    if isinstance(error, SystemError) and printed is not None:
        hint = u" (modules of Python layers are looked for on PYTHONPATH)"
        return u"a Python layer cannot be made: %s: %s%s" % (
            type(printed).__name__, words_of(printed), hint if isinstance(printed, ImportError) else u"")
    return u"%s: %s" % (type(error).__name__, words_of(error))


class Channel(object):
    """The worker's end of the two pipes. Ends the process when the driver's end is gone."""

    def __init__(self, source, sink):
        self.source = source
        self.sink = sink

    def read(self, size):
        parts = []
        while size:
            part = os.read(self.source, min(size, 1 << 20))
            if not part:
                os._exit(0)  # the driver is gone: nothing that this process could still do is needed
            parts.append(part)
            size -= len(part)
        return b"".join(parts)

    def receive(self):
        return unpack(self.read)

    def waiting(self):
        return bool(select.select([self.source], [], [], 0)[0])

    def send(self, kind, arrays=(), **fields):
        self.write(pack(kind, arrays, **fields))

    def write(self, data):
        data = memoryview(data)
        try:
            while data:
                data = data[os.write(self.sink, data):]
        except OSError:
            os._exit(0)


# ---------------------------------------------------------------------------------------------------
# Caffe

def mapped_libraries():
    """Paths of the shared libraries in this process: they tell CUDA and BLAS without a guess."""
    try:
        with open("/proc/self/maps") as maps:
            return sorted(set(mapped_path(line) for line in maps if ".so" in line))
    except IOError:
        return []


def gpu_count(libraries):
    """Number of CUDA devices this Caffe can use; 0 for a CPU-only build."""
    runtime = [path for path in libraries if os.path.basename(path).startswith("libcudart")]
    if not runtime:
        return 0
    count = ctypes.c_int(0)
    if ctypes.CDLL(runtime[0]).cudaGetDeviceCount(ctypes.byref(count)) != 0:
        return 0
    return count.value


def blas_libraries(libraries):
    """The library that Caffe's matrix products come from; by name, and then numpy's may be among them, where
    Caffe's own libraries do not tell."""
    for path in libraries:
        if os.path.basename(path).startswith(("libcaffe", "_caffe")):
            try:
                product = ctypes.cast(ctypes.CDLL(path).cblas_sgemm, ctypes.c_void_p).value
            except (OSError, AttributeError):
                continue
            library = mapped_at(product)
            if library:
                return [library]
    return [path for path in libraries if os.path.basename(path).startswith(BLAS)]


def openblas_kernels(blas):
    """The name of the kernels that OpenBLAS has chosen for this CPU, None for another BLAS."""
    for path in blas:
        try:
            ask = ctypes.CDLL(path).openblas_get_corename
        except (OSError, AttributeError):
            continue
        else:
            ask.restype = ctypes.c_char_p
            return native(ask().decode("ascii"))
    return None


def mapped_at(address):
    """Path of the file that an address of this process belongs to, or None."""
    with open("/proc/self/maps") as maps:
        for line in maps:
            first, last = (int(end, 16) for end in line.split()[0].split("-"))
            if first <= address < last and "/" in line:
                return mapped_path(line)
    return None


def mapped_path(line):
    """The file in a line of /proc/self/maps; its name may have spaces."""
    return line[line.find("/"):].rstrip("\n")


def describe(caffe):
    """The properties of this Caffe that the driver needs, as fields of the "hello" message."""
    libraries = mapped_libraries()
    names = [os.path.basename(path) for path in libraries]
    blas = blas_libraries(libraries)
    parameter = getattr(caffe._caffe, "SolverParameter", None)
    base_lr = getattr(parameter, "base_lr", None)
    return {
        "protocol": PROTOCOL,
        "python": platform.python_version(),
        "executable": sys.executable,
        "caffe": getattr(caffe, "__version__", "unknown"),
        "path": os.path.dirname(os.path.abspath(caffe.__file__)),
        "layers": sorted(str(name) for name in caffe.layer_type_list()),
        "writable_base_lr": getattr(base_lr, "fset", None) is not None,
        "callbacks": hasattr(caffe._caffe.Solver, "add_callback"),
        "layer_callbacks": hasattr(caffe.Net, "after_forward"),
        "cuda": any(name.startswith("libcudart") for name in names),
        "gpus": gpu_count(libraries),
        "blas": blas,
        "blas_kernels": openblas_kernels(blas),
        "files": [path for path in libraries if "caffe" in os.path.basename(path)],
    }


def load_fast_layers(path):
    for name in mapped_libraries():  # the library's classes derive from Caffe's
        if os.path.basename(name).startswith("libcaffe"):
            ctypes.CDLL(name, mode=ctypes.RTLD_GLOBAL)
    return ctypes.CDLL(native(path))


def check_fast_layers(path, threads=1, measure=False):
    """What is wrong: texts of the BLAS's products and of the fast layers, each None where all is well.

    And, where it is to be measured, whether the library's vectors are slow. Products are compared
    with plain sums, the layers with Caffe's own, in a child process: whatever they do there, this
    process continues, and has loaded no library that it does not use.
    """
    source, sink = os.pipe()
    child = os.fork()
    if child == 0:
        text = "their check failed"
        try:
            die_with_parent()
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # Caffe's log of the nets that are tried
            library = load_fast_layers(path)
            library.lrbench_set_threads(threads)  # as the training will use them
            for check in (library.lrbench_check_products, library.lrbench_check_layers):
                check.restype = ctypes.c_char_p
                os.write(sink, BEGUN)
                text = check().decode("utf-8")
                if text:
                    break
            if measure and not text and not library.lrbench_width_pays():
                os.write(sink, SLOW)
        except (OSError, AttributeError) as error:
            text = str(error)
        finally:
            os.write(sink, text.encode("utf-8"))
            os._exit(0)
    os.close(sink)
    text, part, waited = b"", b"?", 0
    while part and waited < CHECK_SECONDS:  # seconds by count: those of a suspended process are none
        if select.select([source], [], [], 1)[0]:
            part = os.read(source, 4096)
            text += part
        else:
            waited += 1
    os.close(source)
    if part:
        os.kill(child, signal.SIGKILL)
    status = os.waitpid(child, 0)[1]
    words = text.lstrip(BEGUN)
    slow = words == SLOW
    problem = None if slow else words.decode("utf-8") or None
    if part:
        problem = "their check takes longer than %d s" % CHECK_SECONDS
    elif os.WIFSIGNALED(status):
        problem = "their check ended by signal %d" % os.WTERMSIG(status)
    in_products = len(text) - len(words) == 1
    return (problem, None, slow) if in_products else (None, problem, slow)


def use_fast_layers(path, threads=1):
    """Let this Caffe make fast layers from now on; returns their library."""
    library = load_fast_layers(path)
    library.lrbench_set_threads(threads)
    library.lrbench_use_layers(1)
    return library


# Layers and blobs are found by their place, not in pycaffe's dictionaries: several layers may have
# one name, and so may the tops that Caffe makes itself ("(automatic)").

def layer_names(net):
    return names_of(net._layer_names)


def blob_names(net):
    return names_of(net._blob_names)


def names_of(strings):
    """Caffe's strings as messages have them, whatever bytes they are."""
    names = []
    for index in range(len(strings)):
        try:
            name = strings[index]
        except UnicodeDecodeError as error:  # Python 3, and Caffe takes any bytes
            name = error.object
        names.append(native(decode(name if isinstance(name, bytes) else name.encode("utf-8"))))
    return names


def places_by_name(names):
    """The places of each name in a list, in order."""
    places = {}
    for place, name in enumerate(names):
        places.setdefault(name, []).append(place)
    return places


# Caffe reads and upgrades prototxts in C++ only, in functions that its library exports. Their names
# are those of the Itanium ABI, which GCC and Clang have; a std::string is one of two, by the age of
# the compiler.
READ_TEXT = "_ZN5caffe21ReadProtoFromTextFileEPKcPN6google8protobuf7MessageE"
WRITE_BINARY = "_ZN5caffe22WriteProtoToBinaryFileERKN6google8protobuf7MessageEPKc"
UPGRADE_NET = "_ZN5caffe18UpgradeNetAsNeededERK%sPNS_12NetParameterE"
NEW_STRING = "NSt7__cxx1112basic_stringIcSt11char_traitsIcESaIcEEE"
OLD_STRING = "Ss"
ARENA = "EPN6google8protobuf5ArenaE"
CONSTRUCTORS = (("Ev", ()), (ARENA, (None,)), (ARENA + "b", (None, False)))
MESSAGE_SIZE = 1 << 16  # more than any message object needs; the data it points to is elsewhere


class NewString(ctypes.Structure):
    """std::string of GCC 5 and newer."""

    _fields_ = [("data", ctypes.c_char_p), ("length", ctypes.c_size_t), ("capacity", ctypes.c_size_t * 2)]

    def __init__(self, text):
        ctypes.Structure.__init__(self, text, len(text), (ctypes.c_size_t * 2)(len(text), 0))


def old_string(text):
    """std::string of GCC 4: a pointer to characters after length, capacity and references."""
    block = ctypes.create_string_buffer(struct.pack("qqq", len(text), len(text), 0) + text)
    pointer = ctypes.c_void_p(ctypes.addressof(block) + 24)
    pointer.block = block  # lives as long
    return pointer


def exported(name):
    """A function of Caffe's library, or None."""
    for path in mapped_libraries():
        if "caffe" in os.path.basename(path):
            function = getattr(ctypes.CDLL(path), name, None)
            if function is not None:
                return function
    return None


def new_message(name):
    """An empty C++ message of caffe.proto, or None."""
    memory = ctypes.create_string_buffer(MESSAGE_SIZE)
    for suffix, arguments in CONSTRUCTORS:
        constructor = exported("_ZN5caffe%d%sC1%s" % (len(name), name, suffix))
        if constructor is not None:
            constructor.restype = None
            constructor(ctypes.byref(memory), *arguments)
            return memory
    return None


def upgrade_net(net, path):
    """Caffe's UpgradeNetAsNeeded; whether this Caffe has it."""
    for string, make in ((NEW_STRING, NewString), (OLD_STRING, old_string)):
        upgrade = exported(UPGRADE_NET % string)
        if upgrade is not None:
            upgrade(ctypes.byref(make(path)), ctypes.byref(net))
            return True
    return False


def read_prototxt(name, path):
    """A prototxt as Caffe reads it, and upgrades a net: what ReadNetParamsFromTextFileOrDie gives.

    Returns:
        Whether it could be parsed, None where this Caffe's functions are not there to be asked, and
        the serialized message.
    """
    read, write = exported(READ_TEXT), exported(WRITE_BINARY)
    message = new_message(name) if read and write else None
    if message is None:
        return None, b""
    path = path if isinstance(path, bytes) else os.fsencode(path)
    read.restype, write.restype = ctypes.c_bool, None
    if not read(path, ctypes.byref(message)):
        return False, b""
    if name == "NetParameter" and not upgrade_net(message, path):
        return None, b""
    handle, temporary = tempfile.mkstemp()
    try:
        write(ctypes.byref(message), temporary.encode("utf-8"))
        with os.fdopen(handle, "rb") as file:
            return True, file.read()
    finally:
        os.unlink(temporary)


def glog_line(text):
    """A line as glog writes it, for Caffe builds that have no ``caffe.log``."""
    now = time.time()
    stamp = time.strftime("%m%d %H:%M:%S", time.localtime(now))
    return "I%s.%06d %5d worker.py:1] %s\n" % (stamp, int(now % 1 * 1e6), os.getpid(), text)


class SolverDriver(object):
    """One Caffe solver and the driver's hold on it."""

    def __init__(self, caffe, channel, request, arrays):
        self.caffe = caffe
        self.channel = channel
        self.stop = int(request["stop"])
        self.lrs = ()
        self.first = 0  # the iteration that lrs[0] belongs to
        self.running = False  # whether the driver waits for "ran"
        self.losses = []
        self.partial = []  # losses of the sub-batches of the current iteration (iter_size > 1)
        self.flushed = 0.0
        self.iter_size = int(request["iter_size"])
        if request["gpu"] is None:
            caffe.set_mode_cpu()
        else:
            caffe.set_device(int(request["gpu"]))
            caffe.set_mode_gpu()
        self.width = None
        if request.get("layers"):
            library = use_fast_layers(request["layers"], int(request["threads"]))
            self.width = library.lrbench_width()
        self.layers = "fast" if request.get("layers") else "stock"
        self.solver = caffe.get_solver(native(request["solver"]))
        self.net = self.solver.net
        self.test_nets = list(self.solver.test_nets)
        self.loss_blobs = self.find_loss_blobs(self.net)
        if request.get("gradients"):
            self.update = GradientUpdate(self, request["gradients"])
        else:
            self.update = OwnPolicy() if request.get("own_policy") else BaseLR(self)
        if self.iter_size > 1 and hasattr(self.net, "after_forward"):
            self.net.after_forward(self.on_layer)
        self.solver.add_callback(self.on_start, self.on_gradients_ready)
        self.next_lr = 0.0

    def load(self, request):
        """Restore a solver state, or copy weights into all nets, as ``caffe train`` does."""
        if request["snapshot"]:
            self.solver.restore(native(request["snapshot"]))
            if request.get("own"):
                self.restore_namesakes(native(request["snapshot"]))
        for weights in request["weights"]:
            for net in [self.net] + self.test_nets:
                net.copy_from(native(weights))
        self.channel.send("loaded", iteration=self.solver.iter)

    def restore_namesakes(self, path):
        """Layers of one name get their weights by their order; Caffe gives the first those of all."""
        names = layer_names(self.net)
        weighted = [place for place, layer in enumerate(self.net.layers) if len(layer.blobs)]
        if len(set(names[place] for place in weighted)) == len(weighted):
            return
        import numpy
        from caffe.proto import caffe_pb2
        state, model = caffe_pb2.SolverState(), caffe_pb2.NetParameter()
        for message, file in ((state, path), (model, None)):
            with open(file or state.learned_net, "rb") as source:
                message.ParseFromString(source.read())
        stored = [layer.blobs for layer in model.layer if layer.blobs]
        for place, blobs in zip(weighted, stored):
            for blob, values in zip(self.net.layers[place].blobs, blobs):
                blob.data[...] = numpy.array(values.data, dtype=numpy.float32).reshape(blob.data.shape)

    @staticmethod
    def parameters_of(net):
        """[name, [[number, shape] of each parameter]] for each layer; shared parameters have one number."""
        numbers, layers = {}, []
        for name, layer in zip(layer_names(net), net.layers):
            blobs = []
            for blob in layer.blobs:
                address = blob.data.__array_interface__["data"][0]
                blobs.append([numbers.setdefault(address, len(numbers)), list(blob.shape)])
            layers.append([name, blobs])
        return layers

    @staticmethod
    def find_loss_blobs(net):
        weights = [float(weight) for weight in net._blob_loss_weights]
        return [(weight, blob) for weight, blob in zip(weights, net._blobs) if weight]

    def facts(self):
        """What only the loaded nets know: fields of the "opened" message."""
        counts = {}  # by address: a shared parameter counts once
        for layer in self.net.layers:
            if layer.type != "BatchNorm":  # its blobs are statistics, not weights
                for blob in layer.blobs:
                    counts[blob.data.__array_interface__["data"][0]] = blob.count
        return {
            "parameters": sum(counts.values()),
            "nets": [self.parameters_of(net) for net in [self.net] + self.test_nets],
            "layers": self.layers,
            "width": self.width,
            "train_shapes": self.shapes(self.net),
            "test_shapes": [self.shapes(net) for net in self.test_nets],
        }

    @staticmethod
    def shapes(net):
        return dict((name, list(blob.shape)) for name, blob in zip(blob_names(net), net._blobs))

    def log(self, text):
        text = for_caffe(text)
        if hasattr(self.caffe, "log"):
            self.caffe.log(text)
        else:
            sys.stderr.write(glog_line(text))
            sys.stderr.flush()

    # -- inside solver.step ---------------------------------------------------------------------

    def on_start(self):
        """Before iteration's forward pass: take its learning rate, or first do what the driver asks."""
        self.update.done()
        iteration = self.solver.iter
        if self.channel.waiting():
            self.interrupt(iteration)
        while iteration - self.first >= len(self.lrs):
            self.end_stretch(iteration)
            self.serve(*self.channel.receive())
        self.next_lr = float(self.lrs[iteration - self.first])
        self.partial = []
        self.update.before(self.next_lr)

    def on_layer(self, layer):
        if layer == len(self.net.layers) - 1:
            self.partial.append(self.read_loss())

    def on_gradients_ready(self):
        self.update.after(self.next_lr)
        # The mean over an iteration's sub-batches; without a callback per layer (old pycaffe) the
        # last one.
        self.losses.append(sum(self.partial) / len(self.partial) if self.partial else self.read_loss())
        if steady() - self.flushed > FLUSH_SECONDS:
            self.flush(self.solver.iter + 1)

    def read_loss(self):
        loss = 0.0
        for weight, blob in self.loss_blobs:
            loss += weight * float(blob.data.sum())
        return loss

    def flush(self, iteration):
        """Send the losses that were not sent yet; ``iteration`` is the one after the last of them."""
        if self.losses:
            import numpy
            losses = numpy.array(self.losses, dtype="<f8")
            self.channel.send("losses", [("losses", losses)], start=iteration - len(losses))
            self.losses = []
        self.flushed = steady()

    def interrupt(self, iteration):
        """A request in the middle of a stretch, test or replay: only "pause" can arrive, and it ends it."""
        request, _ = self.channel.receive()
        if request["kind"] != "pause":
            raise ValueError("unexpected request while running: %s" % request["kind"])
        self.lrs = self.lrs[:iteration - self.first]

    def end_stretch(self, iteration):
        # Not by the length of lrs: a pause that comes before the first update leaves none of them.
        if self.running:
            self.flush(iteration)
            self.lrs, self.running = (), False
            self.channel.send("ran", iteration=iteration)

    # -- requests -------------------------------------------------------------------------------

    def serve(self, request, arrays):
        kind = request["kind"]
        if kind == "load":
            self.load(request)
        elif kind == "run":
            self.first, self.lrs, self.running = self.solver.iter, arrays["lrs"], True
        elif kind == "test":
            self.test(request)
        elif kind == "forward":
            self.forward()
        elif kind == "snapshot":
            self.solver.snapshot()
            self.channel.send("snapshotted", iteration=self.solver.iter)
        elif kind == "replay":
            self.replay(request)
        elif kind == "pause":
            pass  # it crossed the end of the stretch that it was meant for
        elif kind == "log":
            self.log(native(request["text"]))
        elif kind == "close":
            sys.stderr.flush()
            os._exit(0)  # not through Caffe's destructors: prefetch threads can hang there
        else:
            raise ValueError("unknown request: %s" % kind)

    def work(self):
        """Serve requests; a run goes into one solver.step for all iterations that are left."""
        while True:
            self.serve(*self.channel.receive())
            if self.running:
                self.solver.step(self.stop - self.solver.iter)
                self.update.done()
                self.end_stretch(self.solver.iter)

    def test(self, request):
        """One test pass: what is counted of the net's heads, and the means of its own outputs."""
        index, passes = int(request["net"]), int(request["passes"])
        net = self.test_nets[index]
        net.share_with(self.net)
        names = blob_names(net)
        blobs = dict(zip(names, net._blobs))
        loss_blobs = self.find_loss_blobs(net)
        heads = []
        for head in request["heads"]:
            counter = counting.Counter(entropy=not loss_blobs, **head["how"])
            heads.append((counter, blobs[native(head["scores"])], blobs[native(head["labels"])]))
        outputs = [(self.output(net, names[i], i, request), net._blobs[i]) for i in net._outputs]
        loss = 0.0
        last = len(net.layers) - 1
        self.log("Iteration %d, Testing net (#%d)" % (self.solver.iter, index))
        for _ in range(passes):
            if self.channel.waiting():
                self.interrupt(self.solver.iter)
                self.channel.send("cancelled")
                return
            net._forward(0, last)
            for output, blob in outputs:
                output.add(blob.data)
            for weight, blob in loss_blobs:
                loss += weight * float(blob.data.sum())
            for counter, scores, labels in heads:
                counter.add(scores.data, labels.data)
            self.channel.send("batch")
        if request.get("log_loss"):
            self.log("Test loss: %g" % (loss / passes if passes else 0.0))
        self.send_tested(
            [counter for counter, _, _ in heads],
            [output for output, _ in outputs] if passes else [],
            loss / passes if passes and loss_blobs else None,
            passes,
        )

    @staticmethod
    def output(net, name, number, request):
        version = request["detections"].get(name)
        if version is not None:
            return counting.Detections(name, version)
        return counting.Output(name, float(net._blob_loss_weights[number]))

    def send_tested(self, counters, outputs, loss, passes):
        import numpy
        means = {}
        number = 0
        for output in outputs:
            values = output.means(passes)
            means[output.name] = [float(value) for value in values]
            for value in values:
                weight = numpy.float32(output.weight)
                note = " (* %g = %g loss)" % (weight, weight * value) if weight else ""
                self.log("    Test net output #%d: %s = %g%s" % (number, output.name, value, note))
                number += 1
            if not values:
                why = "its length varies" if output.varies else "%d values" % (output.size or 0)
                self.log("    Test net output #%d: %s: no mean (%s)" % (number, output.name, why))
                number += output.size or 0
        names = counting.NUMBERS + ("problem",)
        fields = [dict((name, getattr(counter, name)) for name in names) for counter in counters]
        arrays = [
            ("%s%d" % (name, place), numpy.asarray(getattr(counter, name), dtype="<f8"))
            for place, counter in enumerate(counters) if counter.count is not None
            for name in counting.BY_CLASS
        ]
        self.channel.send("tested", arrays, outputs=means, loss=loss, heads=fields)

    def forward(self):
        """One forward pass of the training net without an update."""
        self.net._forward(0, len(self.net.layers) - 1)
        self.channel.send("forwarded", loss=self.read_loss())

    def replay(self, request):
        """Put data cursors and random generators where ``passes`` forward passes leave them.

        Caffe's snapshots do not hold them. Only the layers that read data or draw random numbers
        run, and where an entry asks for "reshape", those that draw get inputs as large as the data
        that was read.
        """
        nets = [self.net] + self.test_nets
        done, total = 0, sum(int(entry["passes"]) for entry in request["nets"])
        stopped = False
        for entry in request["nets"]:
            net = nets[int(entry["net"])]
            places = places_by_name(layer_names(net))
            layers = [places[native(name)][number] for name, number in entry["layers"]]
            statistics = self.copies_of_blobs(net, layers)
            for _ in range(int(entry["passes"])):
                stopped = self.channel.waiting()
                if stopped:
                    self.interrupt(self.solver.iter)
                    break
                for layer in layers:
                    if entry.get("reshape") and len(net._bottom_ids(layer)):
                        net.reshape()
                    net._forward(layer, layer)
                done += 1
                if steady() - self.flushed > FLUSH_SECONDS:
                    self.flushed = steady()
                    self.channel.send("progress", done=done, total=total)
            for blob, data in statistics:
                blob.data[...] = data
            if stopped:
                break
        self.channel.send("replayed")

    @staticmethod
    def copies_of_blobs(net, layers):
        """The layers' own blobs with their values: BatchNorm counts in a forward pass what it sees."""
        return [(blob, blob.data.copy()) for layer in layers for blob in net.layers[layer].blobs]


def as_float32(lr):
    """The LR as Caffe keeps it: infinite where it is too large."""
    return ctypes.c_float(lr).value


class OwnPolicy(object):
    """The solver's own lr_policy: Caffe computes the LR itself, as ``caffe train`` has it do."""

    def before(self, lr):
        """Just before the iteration with this LR."""

    def after(self, lr):
        """When its gradients are there, before the update."""

    def done(self):
        """After the update."""


class BaseLR(OwnPolicy):
    """The direct way: Caffe's fixed policy reads base_lr at every update.

    Python lets an attribute of any name be set on the objects of most Caffes, and where
    ``solver.param`` is a copy even a real one is set on nothing. So nothing is believed that is not
    read back from the solver.
    """

    def __init__(self, training):
        self.solver = training.solver
        field = getattr(type(self.solver.param), "base_lr", None)
        if getattr(field, "fset", None) is None:
            raise RuntimeError("this Caffe cannot set base_lr from Python (its solver.param has no setter)")
        own = self.solver.param.base_lr
        self.set(2 * own + 1)  # a different value, or the old one could be mistaken for the new one
        self.set(own)

    def set(self, lr):
        self.solver.param.base_lr = lr
        self.check(lr)

    def check(self, lr):
        written = self.solver.param.base_lr
        if abs(written - lr) > 1e-6 * abs(lr) + 1e-37 and written != as_float32(lr):
            raise RuntimeError("base_lr was set to %.9g from Python, but the solver has %.9g" % (lr, written))

    def before(self, lr):
        self.set(lr)

    def after(self, lr):
        self.check(lr)


class GradientUpdate(OwnPolicy):
    """The way for Caffe 1.0, whose base_lr cannot be written: scale the gradients instead.

    The patched solver has base_lr 1, no weight decay and no clipping. With the wanted LR r,
    Caffe's update of a parameter w with gradient g is the same (to rounding) after

        g <- r * (clip(g) + iter_size * weight_decay * decay_mult * w)        (L2; sign(w) for L1)

    for the solvers that are linear in g: SGD and Nesterov.
    """

    def __init__(self, training, options):
        self.training = training
        self.clip = float(options["clip_gradients"])
        self.l1 = options["regularization_type"] == "L1"
        self.display = int(options.get("display", 0))
        self.threshold = log_threshold() if self.display else None
        self.shown = False  # whether this update's LR is in the log
        decay = float(options["weight_decay"]) * training.iter_size
        self.parameters = []
        seen = set()
        for multipliers, layer in zip(self.decay_multipliers(training.net, options), training.net.layers):
            for index, blob in enumerate(layer.blobs):
                address = blob.data.__array_interface__["data"][0]
                if address not in seen:  # a shared parameter is updated once, by its owner
                    seen.add(address)
                    self.parameters.append(
                        (blob, decay * (multipliers[index] if index < len(multipliers) else 1.0)))

    @staticmethod
    def decay_multipliers(net, options):
        """Those of each of the net's layers, in order."""
        names = layer_names(net)
        by_number = [[] for _ in names]
        places = places_by_name(names)
        for name, lists in options["decay_mult"].items():
            for place, multipliers in zip(places.get(native(name), ()), lists):
                by_number[place] = multipliers
        return by_number

    def after(self, lr):
        import numpy
        lr = numpy.float32(lr)
        self.show(lr)
        scale = self.clip_scale(numpy)
        for blob, decay in self.parameters:
            diff = blob.diff
            if scale != 1.0:
                diff *= numpy.float32(scale)
            if decay:
                diff += numpy.float32(decay) * (numpy.sign(blob.data) if self.l1 else blob.data)
            diff *= lr
        if self.shown and self.threshold is not None:
            self.threshold.value += 1

    def done(self):
        if self.shown and self.threshold is not None:
            self.threshold.value -= 1
        self.shown = False

    def show(self, lr):
        """Log the LR where Caffe is about to log the patched solver's base_lr, which is 1.

        Caffe's line is kept out of the log by raising glog's threshold for this update by one
        level, so that warnings and errors still come. Where glog's threshold is not within reach,
        both lines are there, and the last one counts.
        """
        iteration = self.training.solver.iter
        if self.display and iteration % self.display == 0:
            self.training.log("Iteration %d, lr = %g" % (iteration, lr))
            self.shown = True

    def clip_scale(self, numpy):
        """What the gradients are multiplied with; in float32, with squares added up by BLAS, as in Caffe."""
        if self.clip <= 0:
            return 1.0
        squares = numpy.float32(0)
        for blob, _ in self.parameters:
            diff = blob.diff.ravel()
            squares += numpy.dot(diff, diff)
        norm = numpy.float32(squares ** 0.5)
        if not norm > self.clip:
            return 1.0
        scale = numpy.float32(self.clip) / norm
        self.training.log(
            "Gradient clipping: scaling down gradients (L2 norm %g > %g) by scale factor %g"
            % (norm, self.clip, scale))
        return scale


def log_threshold():
    """glog's FLAGS_minloglevel in this process, or None where it cannot be reached."""
    for path in mapped_libraries():
        if os.path.basename(path).startswith(("libglog", "libcaffe", "_caffe")):
            try:
                return ctypes.c_int32.in_dll(ctypes.CDLL(path), "_ZN3fLI17FLAGS_minloglevelE")
            except (OSError, ValueError):
                pass
    return None


# ---------------------------------------------------------------------------------------------------

def die_with_parent():
    """Ask Linux to end this process when its parent ends, even in the middle of a long iteration."""
    try:
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    except (AttributeError, OSError):
        pass  # not Linux: the closed pipe still ends this process at its next iteration


def load_at_first_use(name):
    """Execute a module when something in it is first used, not when it is imported.

    Python 2.7 has no means for that and executes it at once.
    """
    try:
        from importlib.util import LazyLoader
    except ImportError:
        return
    from importlib.machinery import PathFinder

    class Finder(object):
        @staticmethod
        def find_spec(fullname, path=None, target=None):
            spec = PathFinder.find_spec(fullname, path, target) if fullname == name else None
            if spec is not None and spec.loader is not None:
                spec.loader = LazyLoader(spec.loader)
            return spec

    sys.meta_path.insert(0, Finder)


def log_to(path):
    """Let the log continue at the end of a file; what was written before, to a file without a name, too."""
    log = os.open(native(path), os.O_WRONLY | os.O_APPEND)
    os.lseek(2, 0, os.SEEK_SET)
    os.write(log, os.read(2, 1 << 20))
    for number in (1, 2):
        os.dup2(log, number)
    os.close(log)


def fork_worker(descriptor, key):
    """Serve; returns a forked worker's channel, None in the server at its end or where forks are not safe."""
    libraries = mapped_libraries()
    kernels = openblas_kernels(blas_libraries(libraries))  # of another BLAS it is not known
    if kernels is None or any("libcuda" in os.path.basename(path) for path in libraries):
        return None
    gc.collect()
    if hasattr(gc, "freeze"):  # else each worker copies all of this memory when its garbage is collected
        gc.freeze()
    forked = forking.serve(descriptor, 4, signal.SIGKILL, abandoned=signal.SIGKILL)
    if forked is None:
        return None
    if forked.message.decode("ascii") != key:
        os._exit(0)
    source, sink, log = forked.descriptors
    for number in (source, sink):
        os.set_inheritable(number, False)
    for number in (1, 2):
        os.dup2(log, number)
    os.close(log)
    forked.channel.detach()  # open until the end
    return Channel(source, sink)


def main():
    # Only caffe's own modules are wanted here, not those beside this file.
    here = os.path.dirname(os.path.abspath(__file__))
    sys.path[:] = [path for path in sys.path if os.path.abspath(path) != here]
    serving = sys.argv[1:2] == [SERVE]
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the driver
    channel = None
    if not serving:
        die_with_parent()
        # Whatever Caffe or a Python layer prints goes to the log; stdout belongs to the driver.
        channel = Channel(os.dup(0), os.dup(1))
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(2, 1)
        channel.write(MAGIC)
    load_at_first_use("caffe.io")  # pictures: it loads scipy and skimage, the most part of import caffe
    try:
        import caffe
        import numpy
        from caffe.proto import caffe_pb2
    except ImportError as error:
        if channel:
            channel.send("error", text=u"cannot import caffe: " + words_of(error))
        return 1
    descriptor = numpy.frombuffer(caffe_pb2.DESCRIPTOR.serialized_pb, dtype=numpy.uint8)
    hello = pack("hello", [("descriptor", descriptor)], **describe(caffe))
    if serving:
        channel = fork_worker(int(sys.argv[2]), sys.argv[3])
        if channel is None:
            return 0
        channel.write(MAGIC)
    channel.write(hello)
    return serve_driver(caffe, channel)


def serve_driver(caffe, channel):
    """Do what the driver asks: first what needs no solver, then what it asks of the one that it opens."""
    import numpy
    try:
        request, arrays = channel.receive()
        while request["kind"] in ("read", "check", "log_to"):
            if request["kind"] == "log_to":
                log_to(request["file"])
            elif request["kind"] == "read":
                parsed, data = read_prototxt(native(request["message"]), native(request["file"]))
                channel.send("read", [("message", numpy.frombuffer(data, numpy.uint8))], parsed=parsed)
            else:
                products, layers, slow = check_fast_layers(
                    request["library"], int(request["threads"]), request["measure"])
                channel.send("checked", products=products, layers=layers, slow=slow)
            request, arrays = channel.receive()
        if request["kind"] == "open":
            training = SolverDriver(caffe, channel, request, arrays)
            channel.send("opened", **training.facts())
            training.work()
    except Exception as error:  # whatever it is, the driver must hear of it
        import traceback
        traceback.print_exc()
        channel.send("error", text=reason(error))
        sys.stderr.flush()
        os._exit(1)
    return 0


if __name__ == "__main__":
    sys.exit(main())
