"""Writes a partition's state as docs/data-format.md says, for tests and benchmarks of those that read it.

Shares no code with the SDK. Plain rather than fast.
"""

import ctypes
import os
import struct
from ctypes import byref, c_char_p, c_size_t, c_uint, c_void_p

NO_TLS, READ_ONLY, NO_SYNC, CREATE, DUPSORT = 0x200000, 0x20000, 0x10000, 0x40000, 0x04
NO_DUP_DATA, APPEND = 0x20, 0x20000
NOT_FOUND = -30798
DATABASES = {"meta": 0, "entries": 0, "expiry": DUPSORT, "tags": DUPSORT}


def library():
    return ctypes.CDLL("liblmdb.so.0")


class Value(ctypes.Structure):
    """MDB_val."""

    _fields_ = [("size", c_size_t), ("data", c_void_p)]

    @classmethod
    def of(cls, data):
        value = cls(len(data), ctypes.cast(c_char_p(data), c_void_p))
        value.kept = data
        return value

    @property
    def bytes(self):
        return ctypes.string_at(self.data, self.size)


def _crc_table():
    table = []
    for number in range(256):
        for _ in range(8):
            number = number >> 1 ^ (0x82F63B78 if number & 1 else 0)
        table.append(number)
    return table


_TABLE = _crc_table()


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ _TABLE[(crc ^ byte) & 255]
    return crc ^ 0xFFFFFFFF


def entry(value, expiry=None, tags=()):
    """An entry of docs/protocol.md."""
    flags = (1 if expiry is not None else 0) + (2 if tags else 0)
    data = struct.pack(">B", flags)
    if expiry is not None:
        data += struct.pack(">q", expiry)
    if tags:
        data += struct.pack(">B", len(tags))
        for tag in sorted(tag.encode() for tag in tags):
            data += struct.pack(">B", len(tag)) + tag
    return data + value


def take_apart(data):
    """Value, expiry and tags of an entry."""
    flags, at, expiry, tags = data[0], 1, None, []
    if flags & 1:
        (expiry,) = struct.unpack_from(">q", data, at)
        at += 8
    if flags & 2:
        count, at = data[at], at + 1
        for _ in range(count):
            tags.append(data[at + 1 : at + 1 + data[at]].decode())
            at += 1 + data[at]
    return data[at:], expiry, tags


def full_key(store, key):
    return struct.pack(">B", len(store)) + store.encode() + key


class Writer:
    """The node's side of one partition's environment. Use as a context manager, or call `close`."""

    def __init__(self, path, map_size=1 << 24):
        os.makedirs(path, exist_ok=True)
        self.lmdb = library()
        self.lmdb.mdb_strerror.restype = c_char_p
        self.env = c_void_p()
        self.check(self.lmdb.mdb_env_create(byref(self.env)))
        self.check(self.lmdb.mdb_env_set_maxdbs(self.env, 4))
        self.check(self.lmdb.mdb_env_set_mapsize(self.env, c_size_t(map_size)))
        self.check(self.lmdb.mdb_env_open(self.env, os.fsencode(path), NO_TLS | NO_SYNC, 0o600))
        self.txn = None
        self.content = {}  # full key: entry; what a reader should see
        self.processed = self.changelog = 0

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        if self.env is not None:
            self.lmdb.mdb_env_close(self.env)
            self.env = None

    def check(self, code, *allowed):
        if code and code not in allowed:
            raise OSError(code, self.lmdb.mdb_strerror(code).decode())
        return code

    def grow(self, map_size):
        self.check(self.lmdb.mdb_env_set_mapsize(self.env, c_size_t(map_size)))

    def begin(self):
        self.txn = c_void_p()
        self.check(self.lmdb.mdb_txn_begin(self.env, None, 0, byref(self.txn)))
        self.databases = {}
        for name, flags in DATABASES.items():
            number = c_uint()
            self.check(self.lmdb.mdb_dbi_open(self.txn, name.encode(), CREATE | flags, byref(number)))
            self.databases[name] = number

    def commit(self):
        position = struct.pack(">qqqQ", self.processed, self.changelog, self.changelog - 1, 0)
        self.put("meta", b"position", struct.pack(">HHI", 1, 0, crc32c(position)) + position)
        self.check(self.lmdb.mdb_txn_commit(self.txn))
        self.txn = None

    def put(self, database, key, value, flags=0):
        self.check(
            self.lmdb.mdb_put(self.txn, self.databases[database], byref(Value.of(key)), byref(Value.of(value)), flags)
        )

    def delete(self, database, key, value=None):
        data = None if value is None else byref(Value.of(value))
        self.check(self.lmdb.mdb_del(self.txn, self.databases[database], byref(Value.of(key)), data), NOT_FOUND)

    def set(self, full, new):
        """Writes an entry, or removes it (None), with its indexes. Within `begin` and `commit`."""
        store, key = full[: 1 + full[0]], full[1 + full[0] :]
        before = self.content.pop(full, None)
        if before is not None:
            _, expiry, tags = take_apart(before)
            if expiry is not None:
                self.delete("expiry", struct.pack(">q", expiry), full)
            for tag in tags:
                self.delete("tags", store + tag.encode(), key)
            self.delete("entries", full)
        if new is not None:
            self.content[full] = new
            _, expiry, tags = take_apart(new)
            self.put("entries", full, struct.pack(">I", crc32c(full + new)) + new)
            if expiry is not None:
                self.put("expiry", struct.pack(">q", expiry), full)
            for tag in tags:
                self.put("tags", store + tag.encode(), key)
        self.changelog += 1

    def apply(self, writes, processed=None):
        """One transaction. `writes`: pairs of full key and entry, or None. `processed`: of the base from now on."""
        self.begin()
        for full, new in writes:
            self.set(full, new)
        if processed is not None:
            self.processed = processed
        self.commit()
