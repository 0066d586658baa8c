/* Plain data, pickled into the very bytes that `pickle` makes of it. */

#include "core.h"

#define MOST_DEPTH 20
#define MOST_BATCH 1000 /* items that pickle writes at one go */

typedef struct {
    unsigned char *at, *end;
    int memo;                   /* whether objects are numbered: protocol 3; without: protocol 5, `fast` */
    int known;                  /* how many are */
    PyObject *objects[MOST_MEMO]; /* borrowed: the value that is packed holds them */
} Packer;

static int pack(Packer *p, PyObject *value, int depth);

static inline void start_packing(Packer *p, unsigned char *at, unsigned char *end, int memo)
{
    p->at = at;
    p->end = end;
    p->memo = memo;
    p->known = 0; /* the objects are left as they are: to clear them would take longer than to pack a small result */
}

static inline int put(Packer *p, const void *bytes, size_t size)
{
    if ((size_t)(p->end - p->at) < size) return 0;
    memcpy(p->at, bytes, size);
    p->at += size;
    return 1;
}

static inline int put1(Packer *p, unsigned char byte)
{
    if (p->at >= p->end) return 0;
    *p->at++ = byte;
    return 1;
}

static inline int put_sized(Packer *p, unsigned char code, const void *bytes, Py_ssize_t size)
{
    unsigned char head[5] = {code, size & 0xff, (size >> 8) & 0xff, (size >> 16) & 0xff, (size >> 24) & 0xff};
    return size <= 0x7fffffff && put(p, head, 5) && put(p, bytes, size);
}

static inline int put_short(Packer *p, unsigned char code, const void *bytes, Py_ssize_t size)
{
    return put1(p, code) && put1(p, (unsigned char)size) && put(p, bytes, size);
}

/* 1: it was numbered before, and is referred to; 0: it was not; -1: no room */
static int refer(Packer *p, PyObject *value)
{
    if (!p->memo) return 0;
    for (int n = 0; n < p->known; n++)
        if (p->objects[n] == value) return put1(p, 'h') && put1(p, (unsigned char)n) ? 1 : -1;
    return 0;
}

static int number(Packer *p, PyObject *value)
{
    if (!p->memo) return 1;
    if (p->known >= MOST_MEMO) return 0;
    p->objects[p->known] = value;
    return put1(p, 'q') && put1(p, (unsigned char)p->known++);
}

static int pack_int(Packer *p, PyObject *value)
{
    int overflow;
    long long number = PyLong_AsLongLongAndOverflow(value, &overflow);
    if (overflow) return 0;
    if (number == -1 && PyErr_Occurred()) {
        PyErr_Clear();
        return 0;
    }
    unsigned char out[11];
    if (number >= -0x80000000LL && number <= 0x7fffffffLL) {
        uint32_t bits = (uint32_t)number;
        for (int n = 0; n < 4; n++) out[1 + n] = (bits >> 8 * n) & 0xff;
        if (out[3] || out[4]) return out[0] = 'J', put(p, out, 5);
        if (out[2]) return out[0] = 'M', put(p, out, 3);
        return out[0] = 'K', put(p, out, 2);
    }
    uint64_t bits = (uint64_t)number, size = number < 0 ? -bits : bits;
    int count = (64 - __builtin_clzll(size)) / 8 + 1;
    for (int n = 0; n < 8; n++) out[2 + n] = (bits >> 8 * n) & 0xff;
    out[10] = number < 0 ? 0xff : 0;
    if (number < 0 && count > 1 && out[1 + count] == 0xff && (out[count] & 0x80)) count--;
    out[0] = 0x8a;
    out[1] = count;
    return put(p, out, 2 + count);
}

static int pack_float(Packer *p, PyObject *value)
{
    double number = PyFloat_AsDouble(value);
    uint64_t bits;
    unsigned char out[9] = {'G'};
    memcpy(&bits, &number, 8);
    for (int n = 0; n < 8; n++) out[1 + n] = (bits >> (56 - 8 * n)) & 0xff;
    return put(p, out, 9);
}

static int pack_text(Packer *p, PyObject *value)
{
    int found = refer(p, value);
    if (found) return found > 0;
    Py_ssize_t size;
    const char *text = PyUnicode_AsUTF8AndSize(value, &size);
    if (text == NULL) { /* lone surrogates */
        PyErr_Clear();
        return 0;
    }
    if (p->memo || size > 0xff ? !put_sized(p, 'X', text, size) : !put_short(p, 0x8c, text, size)) return 0;
    return number(p, value);
}

static int pack_bytes(Packer *p, PyObject *value)
{
    int found = refer(p, value);
    if (found) return found > 0;
    char *bytes;
    Py_ssize_t size;
    if (PyBytes_AsStringAndSize(value, &bytes, &size) < 0) {
        PyErr_Clear();
        return 0;
    }
    if (size > 0xff ? !put_sized(p, 'B', bytes, size) : !put_short(p, 'C', bytes, size)) return 0;
    return number(p, value);
}

static int pack_dict(Packer *p, PyObject *value, int depth)
{
    int found = refer(p, value);
    if (found) return found > 0;
    Py_ssize_t size = PyDict_Size(value), at = 0;
    if (size > MOST_BATCH || !put1(p, '}') || !number(p, value)) return 0;
    if (!size) return 1;
    if (size > 1 && !put1(p, '(')) return 0;
    PyObject *key, *item;
    while (PyDict_Next(value, &at, &key, &item))
        if (!pack(p, key, depth + 1) || !pack(p, item, depth + 1)) return 0;
    return put1(p, size > 1 ? 'u' : 's');
}

static int pack_list(Packer *p, PyObject *value, int depth)
{
    int found = refer(p, value);
    if (found) return found > 0;
    Py_ssize_t size = PyList_Size(value);
    if (size > MOST_BATCH || !put1(p, ']') || !number(p, value)) return 0;
    if (!size) return 1;
    if (size > 1 && !put1(p, '(')) return 0;
    for (Py_ssize_t at = 0; at < size; at++)
        if (!pack(p, PyList_GetItem(value, at), depth + 1)) return 0;
    return put1(p, size > 1 ? 'e' : 'a');
}

/* Whether it is plain, and there was room for it. */
static int pack(Packer *p, PyObject *value, int depth)
{
    if (PyLong_CheckExact(value)) return pack_int(p, value);
    if (PyUnicode_CheckExact(value)) return pack_text(p, value);
    if (PyFloat_CheckExact(value)) return pack_float(p, value);
    if (value == Py_None) return put1(p, 'N');
    if (value == Py_True) return put1(p, 0x88);
    if (value == Py_False) return put1(p, 0x89);
    if (PyBytes_CheckExact(value)) return pack_bytes(p, value);
    if (depth > MOST_DEPTH) return 0;
    if (PyDict_CheckExact(value)) return pack_dict(p, value, depth);
    if (PyList_CheckExact(value)) return pack_list(p, value, depth);
    return 0;
}

PyObject *ERROR_KEY;

/* A result, as `encode_result` would encode one that is OK, less its full stop; its size, or -1. */
Py_ssize_t pack_result(unsigned char *at, unsigned char *end, PyObject *value)
{
    static const unsigned char head[] = {0x80, 3};
    Packer p;
    start_packing(&p, at, end, 1);
    if (value == Py_None) return put(&p, head, 2) && put(&p, "}q", 3) ? p.at - at : -1; /* and the number, 0 */
    if (!PyDict_CheckExact(value) || PyDict_GetItemWithError(value, ERROR_KEY) != NULL) return -1;
    return put(&p, head, 2) && pack_dict(&p, value, 0) && p.at < p.end ? p.at - at : -1;
}

PyObject *core_pack_result(PyObject *module, PyObject *value)
{
    size_t room = 1 << 16;
    unsigned char *buffer = PyMem_Malloc(room);
    if (buffer == NULL) return PyErr_NoMemory();
    Py_ssize_t size = pack_result(buffer, buffer + room, value);
    PyObject *packed = size < 0 ? Py_NewRef(Py_None) : PyBytes_FromStringAndSize((char *)buffer, size);
    PyMem_Free(buffer);
    return packed;
}

/* A block of jobs, as `_BlockPickler` makes one; its size, or -1. */
static Py_ssize_t pack_block(unsigned char *buffer, Py_ssize_t room, PyObject *jobs, Py_ssize_t start, Py_ssize_t stop)
{
    static const unsigned char head[] = {0x80, 5, 0x95, 0, 0, 0, 0, 0, 0, 0, 0, ']', '('};
    Packer p;
    start_packing(&p, buffer, buffer + room, 0);
    if (!put(&p, head, sizeof head)) return -1;
    for (Py_ssize_t n = start; n < stop; n++) {
        PyObject *job = PyTuple_GetItem(jobs, n);
        if (!PyDict_CheckExact(job) || !pack_dict(&p, job, 0)) return -1;
    }
    if (!put(&p, "e.", 2)) return -1;
    uint64_t framed = p.at - buffer - 11;
    for (int n = 0; n < 8; n++) buffer[3 + n] = (framed >> 8 * n) & 0xff;
    return p.at - buffer;
}

/* encode_blocks(jobs, block_jobs, block_bytes) -> list of bytes, with None in the place of a block that is not plain */
PyObject *core_encode_blocks(PyObject *module, PyObject *args)
{
    PyObject *jobs;
    Py_ssize_t most, room;
    if (!PyArg_ParseTuple(args, "O!nn", &PyTuple_Type, &jobs, &most, &room)) return NULL;
    if (most < 2 || most > MOST_BATCH) return PyErr_Format(PyExc_ValueError, "blocks of %zd jobs", most);
    Py_ssize_t count = PyTuple_Size(jobs);
    unsigned char *buffer = PyMem_Malloc(room);
    PyObject *blocks = buffer ? PyList_New(0) : PyErr_NoMemory();
    for (Py_ssize_t start = 0; blocks && start < count; start += most) {
        Py_ssize_t stop = start + most < count ? start + most : count;
        Py_ssize_t size = stop - start > 1 ? pack_block(buffer, room, jobs, start, stop) : -1;
        PyObject *block = size < 0 ? Py_NewRef(Py_None) : PyBytes_FromStringAndSize((char *)buffer, size);
        if (block == NULL || PyList_Append(blocks, block) < 0) Py_CLEAR(blocks);
        Py_XDECREF(block);
    }
    PyMem_Free(buffer);
    return blocks;
}
