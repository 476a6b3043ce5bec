"""llama.cpp's C interface, which the extension module of `xllamacpp` exports on Linux and macOS.

`xllamacpp` itself offers llama.cpp's server, which opens a port and decodes one option per request. This module calls
the underlying library directly: it opens no port and decodes all options in one batch.

Two parameter structures are passed by value, and their layout may change with any release. `is_callable` recognises the
expected layout by its default values.
"""

import ctypes
import signal
import struct
import threading
from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager
from ctypes import POINTER, c_bool, c_char_p, c_float, c_int32, c_void_p
from functools import cache, cached_property
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import numpy as np
from numpy.typing import NDArray

from promptmii.errors import ModelError, UnknownModelError

Logits = NDArray[np.float32]
SEQUENCES = 128
"""Sequences in a batch, including the shared one. llama.cpp allocates logits for each."""
OUTPUTS = SEQUENCES
"""Most positions per batch whose logits can be read."""
BATCH = 512
"""Most tokens per batch."""

_STRUCTURE = 512
"""Bytes reserved for a parameter structure; unused ones are harmless."""
_MODEL_DEFAULTS = ((16, "<iii", (-1, 1, -1)),)
"""n_gpu_layers, split_mode, main_gpu."""
_CONTEXT_DEFAULTS = (
    (0, "<9i", (512, 2048, 512, 1, 0, 0, 1, 4, 4)),
    (40, "<4i", (-1, -1, -1, -1)),
    (136, "<6?", (False, True, True, True, True, False)),
)
"""n_ctx, n_batch, n_ubatch, n_seq_max, n_rs_seq, n_outputs_max, n_outputs_max_per_seq, n_threads, n_threads_batch; the
types of RoPE scaling, pooling, attention and flash attention; embeddings, offload_kqv, no_perf, op_offload, swa_full,
kv_unified."""
_USE_EXTRA_BUFFERS, _FLASH_ATTENTION, _KV_UNIFIED = 74, 52, 141
_CONTROL = 1 << 3 | 1 << 4
"""LLAMA_TOKEN_ATTR_CONTROL and _USER_DEFINED."""
_ERROR = 4
"""GGML_LOG_LEVEL_ERROR."""
_LogCallback = ctypes.CFUNCTYPE(None, ctypes.c_int, c_char_p, c_void_p)
_AbortCallback = ctypes.CFUNCTYPE(c_bool, c_void_p)


class _Parameters(ctypes.Structure):
    _fields_ = (("bytes", ctypes.c_uint8 * _STRUCTURE),)

    def put(self, offset: int, form: str, *values: object) -> None:
        struct.pack_into(form, self.bytes, offset, *values)

    def holds(self, defaults: Sequence[tuple[int, str, tuple[object, ...]]]) -> bool:
        return all(struct.unpack_from(form, self.bytes, offset) == values for offset, form, values in defaults)


class _Batch(ctypes.Structure):
    _fields_ = (
        ("n_tokens", c_int32),
        ("token", c_void_p),
        ("embd", c_void_p),
        ("pos", c_void_p),
        ("n_seq_id", c_void_p),
        ("seq_id", c_void_p),
        ("logits", c_void_p),
    )


_SIGNATURES: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "llama_log_set": (None, (_LogCallback, c_void_p)),
    "llama_backend_init": (None, ()),
    "llama_model_default_params": (_Parameters, ()),
    "llama_context_default_params": (_Parameters, ()),
    "llama_model_load_from_file": (c_void_p, (c_char_p, _Parameters)),
    "llama_init_from_model": (c_void_p, (c_void_p, _Parameters)),
    "llama_free": (None, (c_void_p,)),
    "llama_model_free": (None, (c_void_p,)),
    "llama_model_n_ctx_train": (c_int32, (c_void_p,)),
    "llama_model_meta_val_str": (c_int32, (c_void_p, c_char_p, c_char_p, ctypes.c_size_t)),
    "llama_model_get_vocab": (c_void_p, (c_void_p,)),
    "llama_vocab_n_tokens": (c_int32, (c_void_p,)),
    "llama_vocab_get_attr": (c_int32, (c_void_p, c_int32)),
    "llama_vocab_get_text": (c_char_p, (c_void_p, c_int32)),
    "llama_vocab_is_eog": (c_bool, (c_void_p, c_int32)),
    "llama_vocab_eos": (c_int32, (c_void_p,)),
    "llama_vocab_bos": (c_int32, (c_void_p,)),
    "llama_vocab_get_add_bos": (c_bool, (c_void_p,)),
    "llama_tokenize": (c_int32, (c_void_p, c_char_p, c_int32, POINTER(c_int32), c_int32, c_bool, c_bool)),
    "llama_detokenize": (c_int32, (c_void_p, POINTER(c_int32), c_int32, c_char_p, c_int32, c_bool, c_bool)),
    "llama_get_memory": (c_void_p, (c_void_p,)),
    "llama_memory_seq_cp": (None, (c_void_p, c_int32, c_int32, c_int32, c_int32)),
    "llama_memory_seq_rm": (c_bool, (c_void_p, c_int32, c_int32, c_int32)),
    "llama_decode": (c_int32, (c_void_p, _Batch)),
    "llama_get_logits": (POINTER(c_float), (c_void_p,)),
    "llama_set_abort_callback": (None, (c_void_p, _AbortCallback, c_void_p)),
    "llama_adapter_lora_init": (c_void_p, (c_void_p, c_char_p)),
    "llama_set_adapters_lora": (c_int32, (c_void_p, POINTER(c_void_p), ctypes.c_size_t, POINTER(c_float))),
}


_errors: list[str] = []
"""Errors that llama.cpp logged since the last load began."""


@_LogCallback
def _log(level: int, text: bytes | None, _data: object) -> None:
    """Keep errors only. llama.cpp would write 500 lines about each model to standard error."""
    if level == _ERROR and text and len(_errors) < 16:
        _errors.append(text.decode("utf-8", "replace").strip())


@contextmanager
def _signals_deferred() -> Generator[None]:
    """Handle signals at the end of the block, because an exception that a handler raises inside `_log` would be lost.

    Use it around every call that may log, including setters and closing.
    """
    pending: list[int] = []
    handlers: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():
        handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        handlers = {number: handler for number, handler in handlers.items() if callable(handler)}
    for number in handlers:
        signal.signal(number, lambda number, _: pending.append(number))
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    if pending:
        handlers[pending[0]](pending[0], None)


@cache
def _library() -> Any:
    """The library with its signatures set. Raises `UnknownModelError`; `AttributeError` if a function is missing."""
    try:
        import xllamacpp.xllamacpp as extension
    except ImportError as error:
        raise UnknownModelError(
            f"GGUF models (qwen, smol, gguf:) are run by xllamacpp, which cannot be loaded: {error}. Install it with: "
            "pip install xllamacpp (Linux, Windows, macOS on Apple silicon), or use hf: or openai: models."
        ) from error
    library = ctypes.CDLL(str(extension.__file__))
    for name, (result, arguments) in _SIGNATURES.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    library.llama_backend_init()
    return library


def is_callable() -> bool:
    """Whether llama.cpp can be called directly. Raises `UnknownModelError`."""
    try:
        library = _library()
    except (AttributeError, OSError):  # this build of xllamacpp exports no functions
        return False
    model, context = library.llama_model_default_params(), library.llama_context_default_params()
    return model.holds(_MODEL_DEFAULTS) and context.holds(_CONTEXT_DEFAULTS)


class Token(NamedTuple):
    """One token of a batch."""

    id: int
    position: int
    sequences: Sequence[int]
    """The sequences it belongs to; it attends to the earlier tokens of all of them."""
    read: bool = False
    """`decode` returns its logits."""


class Native:
    """A GGUF model with one context, for one thread at a time."""

    def __init__(self, path: Path) -> None:
        """Load the weights. Check `is_callable` before, and call `open` after. Raises `UnknownModelError`."""
        self._library: Any = _library()
        self._context: Any = None
        parameters = self._library.llama_model_default_params()
        # On AVX2, repacked weights are no faster, take four seconds at each start and cannot be memory-mapped.
        parameters.put(_USE_EXTRA_BUFFERS, "<?", False)
        self._library.llama_log_set(_log, None)  # at each load, because a server of xllamacpp sets its own
        _errors.clear()
        self._model: Any = None
        try:
            with _signals_deferred():
                self._model = self._library.llama_model_load_from_file(str(path).encode(), parameters)
        except BaseException:
            self.close()
            raise
        if not self._model:
            _refuse(path)
        self._vocabulary = self._library.llama_model_get_vocab(self._model)
        self.trained_context = int(self._library.llama_model_n_ctx_train(self._model))
        self.size = int(self._library.llama_vocab_n_tokens(self._vocabulary))
        """The size of the vocabulary."""

    def open(self, cells: int, threads: int, adapters: Sequence[Path]) -> None:
        """Make a context for `cells` tokens in all sequences together, with LoRA adapters in GGUF format.

        Raises `ModelError`, `UnknownModelError`.
        """
        parameters = self._library.llama_context_default_params()
        parameters.put(0, "<9i", cells, BATCH, BATCH, SEQUENCES, 0, OUTPUTS, OUTPUTS, threads, threads)
        # Flash attention works in tiles, so results would depend on the other tokens in the batch.
        parameters.put(_FLASH_ATTENTION, "<i", 0)
        parameters.put(_KV_UNIFIED, "<?", True)
        self._interrupt = _Interrupt()
        with _signals_deferred():
            self._context = self._library.llama_init_from_model(self._model, parameters)
            if self._context:
                self._library.llama_set_abort_callback(self._context, self._interrupt.callback, None)
        if not self._context:
            raise ModelError(f"No memory for a context of {cells} tokens; ask for a smaller one with --context-length.")
        self._memory = self._library.llama_get_memory(self._context)
        self._adapt(adapters)

    def _adapt(self, adapters: Sequence[Path]) -> None:
        _errors.clear()
        with _signals_deferred():
            handles = [self._library.llama_adapter_lora_init(self._model, str(path).encode()) for path in adapters]
        if not all(handles):
            reason = next((line.rpartition(": ")[2] for line in _errors), "no reason given")
            raise UnknownModelError(f"An adapter does not fit this model: {reason}. Expected a LoRA trained on it.")
        if handles:
            scales = (c_float * len(handles))(*[1.0] * len(handles))
            pointers = (c_void_p * len(handles))(*handles)
            with _signals_deferred():
                self._library.llama_set_adapters_lora(self._context, pointers, len(handles), scales)

    def metadata(self, key: str) -> str | None:
        """A value from the file's header as text, or `None` if the key is missing."""
        for size in (256, 1 << 20):
            buffer = ctypes.create_string_buffer(size)
            length = self._library.llama_model_meta_val_str(self._model, key.encode(), buffer, size)
            if length < size:
                return buffer.value.decode("utf-8", "replace") if length >= 0 else None
        return None

    @cached_property
    def control_tokens(self) -> dict[str, int]:
        """Control tokens by their text."""
        attributes, text = self._library.llama_vocab_get_attr, self._library.llama_vocab_get_text
        control = (token for token in range(self.size) if attributes(self._vocabulary, token) & _CONTROL)
        return {text(self._vocabulary, token).decode("utf-8", "replace"): token for token in control}

    def ends(self) -> list[int]:
        """Tokens that end an answer, starting with the end-of-text token."""
        is_end = self._library.llama_vocab_is_eog
        ends = (token for token in self.control_tokens.values() if is_end(self._vocabulary, token))
        eos = int(self._library.llama_vocab_eos(self._vocabulary))  # -1 if there is none
        return [token for token in dict.fromkeys([eos, *ends]) if token >= 0]

    def begin(self) -> int | None:
        """The beginning-of-text token, if the tokenizer adds one."""
        adds_bos = self._library.llama_vocab_get_add_bos(self._vocabulary)
        return int(self._library.llama_vocab_bos(self._vocabulary)) if adds_bos else None

    def tokenize(self, text: str, *, special: bool) -> list[int]:
        """Token ids; `special` parses control tokens in the text."""
        raw = text.encode("utf-8", "replace")
        room = len(raw) + 8
        while True:
            tokens = (c_int32 * room)()
            count = self._library.llama_tokenize(self._vocabulary, raw, len(raw), tokens, room, False, special)
            if count >= 0:
                return tokens[:count]
            room = -count

    def text(self, tokens: Sequence[int]) -> str:
        """The text of the tokens, without control tokens."""
        ids = (c_int32 * len(tokens))(*tokens)
        room = 32 * len(tokens) + 8
        while True:
            buffer = ctypes.create_string_buffer(room)
            length = self._library.llama_detokenize(self._vocabulary, ids, len(tokens), buffer, room, True, False)
            if length >= 0:
                return buffer.raw[:length].decode("utf-8", "replace")
            room = -length

    def decode(self, batch: Sequence[Token]) -> Logits:
        """Compute up to `BATCH` tokens; return the logits (N, V) of those with `read`, valid until the next call.

        Raises `KeyboardInterrupt`, `ModelError`.
        """
        rows = ((token.id, token.position, len(token.sequences)) for token in batch)
        ids, positions, counts = (np.array(column, np.int32) for column in zip(*rows, strict=True))
        sequences = np.fromiter((sequence for token in batch for sequence in token.sequences), np.int32)
        starts = np.cumsum(counts) - counts
        pointers = (sequences.ctypes.data + 4 * starts).astype(np.uint64)  # to each token's sequences
        read = np.array([token.read for token in batch], np.int8)
        ids_address, *others = (array.ctypes.data for array in (ids, positions, counts, pointers, read))
        status = self._library.llama_decode(self._context, _Batch(len(batch), ids_address, None, *others))
        self._interrupt.raise_pending()
        if status:
            raise ModelError(f"llama.cpp gave up on a batch of {len(batch)} tokens (status {status}).")
        logits = self._library.llama_get_logits(self._context)
        return np.ctypeslib.as_array(logits, (int(read.sum()), self.size))

    def share(self, source: int, targets: Iterable[int]) -> None:
        """Copy the cache of `source` to other sequences."""
        for target in targets:
            self._library.llama_memory_seq_cp(self._memory, source, target, -1, -1)

    def drop(self, sequences: Iterable[int], start: int = 0) -> None:
        """Remove everything from position `start` on from the cache of each sequence."""
        for sequence in sequences:
            self._library.llama_memory_seq_rm(self._memory, sequence, start, -1)

    def close(self) -> None:
        """Free the memory. May be called twice; every other method then raises `ModelError`."""
        library, self._library = self._library, _Closed()
        if not isinstance(library, _Closed):
            with _signals_deferred():
                if self._context:
                    library.llama_free(self._context)
                library.llama_model_free(self._model)


class _Closed:
    """Replaces the library after `close`, so that no call uses freed memory."""

    def __getattr__(self, name: str) -> NoReturn:
        raise ModelError("This model was closed. Load it again.")


class _Interrupt:
    """Runs Python's signal handlers while llama.cpp computes, so that Ctrl-C works at once rather than seconds later.

    llama.cpp calls `callback` between operations. Python handles a pending signal at the start of the callback, before
    a function could enter a `try`. A generator resumes inside its `try`, so it can catch the exception and keep it
    until llama.cpp has returned.
    """

    def __init__(self) -> None:
        self._raised: BaseException | None = None
        watch = self._watch()
        next(watch)
        self.callback = _AbortCallback(watch.send)

    def raise_pending(self) -> None:
        """Raise the exception of a signal handler, usually `KeyboardInterrupt`, if there was one."""
        raised, self._raised = self._raised, None
        if raised is not None:
            raise raised

    def _watch(self) -> Generator[bool, None]:
        while True:
            try:
                while True:
                    yield self._raised is not None
            except GeneratorExit:
                return
            except BaseException as error:
                self._raised = error


def _refuse(path: Path) -> NoReturn:
    with path.open("rb") as file:
        magic = file.read(4)
    if magic != b"GGUF":
        raise UnknownModelError(f"{path} is not a GGUF file. Expected a model converted for llama.cpp.")
    marker = "error loading model: "
    reason = next((line.partition(marker)[2] for line in _errors if marker in line), "no reason given")
    raise UnknownModelError(
        f"llama.cpp cannot load {path}: {reason}. Is the file complete, and its architecture known to this release of "
        "xllamacpp?"
    )
