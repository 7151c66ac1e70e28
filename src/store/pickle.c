/* SPDX-License-Identifier: Apache-2.0 */
/* An unpickler that constructs nothing.
 *
 * A pickle is a program for a stack machine; in Python, some of its instructions import
 * and call whatever they name, which is how a weights file can run code.  Here those
 * instructions make values that only say "this would be called with that", their names
 * must be in the caller's allow list, and any instruction that PyTorch does not emit
 * ends the reading.  Everything else is numbers, texts and containers.
 *
 * Values, items and the memo are arrays addressed by index, so a value may hold itself
 * without harm; an instruction of k bytes adds at most one value and moves at most what
 * is on the stack, so memory is bounded by the length of the pickle.  Texts stay in the
 * pickle.  Source: the comments of CPython's Lib/pickletools.py, protocols 2 to 5.
 * Caller: torchbin.c. */
#include "pickle.h"

#include "kdhpc/base/mem.h"
#include "weights_impl.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_BYTES = 1 << 25, HIGHEST_PROTOCOL = 5 };

enum opcode {
    OP_MARK = '(',
    OP_STOP = '.',
    OP_POP = '0',
    OP_POP_MARK = '1',
    OP_DUP = '2',
    OP_BINFLOAT = 'G',
    OP_BININT = 'J',
    OP_BININT1 = 'K',
    OP_BININT2 = 'M',
    OP_NONE = 'N',
    OP_BINPERSID = 'Q',
    OP_REDUCE = 'R',
    OP_BINSTRING = 'T',
    OP_SHORT_BINSTRING = 'U',
    OP_BINUNICODE = 'X',
    OP_BINBYTES = 'B',
    OP_SHORT_BINBYTES = 'C',
    OP_EMPTY_LIST = ']',
    OP_APPEND = 'a',
    OP_BUILD = 'b',
    OP_GLOBAL = 'c',
    OP_APPENDS = 'e',
    OP_BINGET = 'h',
    OP_LONG_BINGET = 'j',
    OP_BINPUT = 'q',
    OP_LONG_BINPUT = 'r',
    OP_SETITEM = 's',
    OP_TUPLE = 't',
    OP_SETITEMS = 'u',
    OP_EMPTY_DICT = '}',
    OP_EMPTY_TUPLE = ')',
    OP_PROTO = 0x80,
    OP_NEWOBJ = 0x81,
    OP_TUPLE1 = 0x85,
    OP_TUPLE2 = 0x86,
    OP_TUPLE3 = 0x87,
    OP_NEWTRUE = 0x88,
    OP_NEWFALSE = 0x89,
    OP_LONG1 = 0x8a,
    OP_LONG4 = 0x8b,
    OP_SHORT_BINUNICODE = 0x8c,
    OP_BINUNICODE8 = 0x8d,
    OP_BINBYTES8 = 0x8e,
    OP_STACK_GLOBAL = 0x93,
    OP_MEMOIZE = 0x94,
    OP_FRAME = 0x95,
    OP_BYTEARRAY8 = 0x96,
};

struct machine {
    const unsigned char *bytes;
    int64_t n, at;
    const char *const *globals;
    const char *what;
    struct kd_pickle *p;
    int32_t *stack, *marks, *memo; /* values; heights of the stack; values or -1 */
    int64_t height, cap_stack, n_marks, cap_marks, n_memo, cap_memo, n_memoized;
};

static int damaged(const struct machine *m, const char *why)
{
    return KD_FAIL(KD_EINPUT, "%s: its pickle is damaged at byte %lld: %s", m->what,
                   (long long)m->at, why);
}

/* ---- bytes ---- */

static int take(struct machine *m, uint64_t n, const unsigned char **out)
{
    if (n > (uint64_t)(m->n - m->at))
        return damaged(m, "it ends in the middle of an instruction");
    *out = m->bytes + m->at;
    m->at += (int64_t)n;
    return KD_OK;
}

static int take_number(struct machine *m, int bytes, uint64_t *out)
{
    const unsigned char *b = NULL;

    KD_TRY(take(m, (uint64_t)bytes, &b));
    *out = kd_little(b, bytes);
    return KD_OK;
}

/* ---- values and the stack ---- */

static int64_t floor_of(const struct machine *m)
{
    return m->n_marks ? m->marks[m->n_marks - 1] : 0;
}

static int push_index(struct machine *m, int32_t value)
{
    KD_TRY(kd_grow(&m->stack, &m->cap_stack, m->height + 1, sizeof *m->stack));
    m->stack[m->height++] = value;
    return KD_OK;
}

static int new_value(struct machine *m, struct kd_pickle_value v, int32_t *out)
{
    struct kd_pickle *p = m->p;

    v.first = v.last = -1;
    KD_TRY(kd_grow(&p->values, &p->cap_values, p->n_values + 1, sizeof *p->values));
    p->values[p->n_values] = v;
    *out = (int32_t)p->n_values++;
    return KD_OK;
}

static int push(struct machine *m, struct kd_pickle_value v)
{
    int32_t value = 0;

    KD_TRY(new_value(m, v, &value));
    return push_index(m, value);
}

static int push_kind(struct machine *m, enum kd_pickle_kind kind)
{
    return push(m, (struct kd_pickle_value){.kind = kind});
}

static int push_int(struct machine *m, int64_t n)
{
    return push(m, (struct kd_pickle_value){.kind = KD_PICKLE_INT, .n = n});
}

static int pop(struct machine *m, int32_t *out)
{
    if (m->height <= floor_of(m))
        return damaged(m, "it takes from an empty stack");
    *out = m->stack[--m->height];
    return KD_OK;
}

static int add_item(struct machine *m, int32_t to, int32_t key, int32_t value)
{
    struct kd_pickle *p = m->p;
    struct kd_pickle_value *v = &p->values[to];
    int32_t at = (int32_t)p->n_items;

    KD_TRY(kd_grow(&p->items, &p->cap_items, p->n_items + 1, sizeof *p->items));
    p->items[p->n_items++] = (struct kd_pickle_item){key, value, -1};
    if (v->last >= 0)
        p->items[v->last].next = at;
    else
        v->first = at;
    v->last = at;
    v->n++;
    return KD_OK;
}

/* ---- containers ---- */

/* Take what lies above the last mark off the stack, and the mark: N values, which stay
 * where *V points until the next push. */
static int pop_marked(struct machine *m, const int32_t **v, int64_t *n)
{
    if (!m->n_marks)
        return damaged(m, "it looks for a mark that is not there");
    *n = m->height - floor_of(m);
    m->height = m->marks[--m->n_marks];
    *v = m->stack + m->height;
    return KD_OK;
}

static int make_tuple(struct machine *m, const int32_t *v, int64_t n)
{
    int32_t tuple = 0;

    KD_TRY(new_value(m, (struct kd_pickle_value){.kind = KD_PICKLE_TUPLE}, &tuple));
    for (int64_t i = 0; i < n; i++)
        KD_TRY(add_item(m, tuple, -1, v[i]));
    return push_index(m, tuple);
}

/* The top N values as a tuple. */
static int make_short_tuple(struct machine *m, int n)
{
    int32_t top[3] = {0, 0, 0};

    for (int i = n; i-- > 0;)
        KD_TRY(pop(m, &top[i]));
    return make_tuple(m, top, n);
}

static int make_marked_tuple(struct machine *m)
{
    const int32_t *v = NULL;
    int64_t n = 0;

    KD_TRY(pop_marked(m, &v, &n));
    return make_tuple(m, v, n);
}

/* The container at the top of the stack, which stays there. */
static int top_of_kind(struct machine *m, enum kd_pickle_kind kind, int32_t *out)
{
    if (m->height <= floor_of(m))
        return damaged(m, "it takes from an empty stack");
    *out = m->stack[m->height - 1];
    if (m->p->values[*out].kind != kind)
        return damaged(m, "it fills what is not the right container");
    return KD_OK;
}

static int append(struct machine *m, bool marked)
{
    const int32_t *v = NULL;
    int32_t list = 0, one = 0;
    int64_t n = 1;

    if (marked) {
        KD_TRY(pop_marked(m, &v, &n));
    } else {
        KD_TRY(pop(m, &one));
        v = &one;
    }
    KD_TRY(top_of_kind(m, KD_PICKLE_LIST, &list));
    for (int64_t i = 0; i < n; i++)
        KD_TRY(add_item(m, list, -1, v[i]));
    return KD_OK;
}

static int set_items(struct machine *m, bool marked)
{
    const int32_t *v = NULL;
    int32_t dict = 0, pair[2] = {0, 0};
    int64_t n = 2;

    if (marked) {
        KD_TRY(pop_marked(m, &v, &n));
    } else {
        KD_TRY(pop(m, &pair[1]));
        KD_TRY(pop(m, &pair[0]));
        v = pair;
    }
    if (n % 2)
        return damaged(m, "its keys and values do not match");
    KD_TRY(top_of_kind(m, KD_PICKLE_DICT, &dict));
    for (int64_t i = 0; i < n; i += 2)
        KD_TRY(add_item(m, dict, v[i], v[i + 1]));
    return KD_OK;
}

/* ---- what would run ---- */

static int push_global(struct machine *m, const char *module, int64_t module_len,
                       const char *name, int64_t name_len)
{
    for (int i = 0; m->globals[i]; i++) {
        const char *g = m->globals[i];

        if ((int64_t)strlen(g) == module_len + 1 + name_len &&
            !memcmp(g, module, (size_t)module_len) && g[module_len] == ' ' &&
            !memcmp(g + module_len + 1, name, (size_t)name_len))
            return push(m, (struct kd_pickle_value){.kind = KD_PICKLE_GLOBAL, .n = i});
    }
    return KD_FAIL(
        KD_EINPUT,
        "%s: its pickle asks for %.*s.%.*s, which weights do not need: it is "
        "refused, nothing of it was run",
        m->what, (int)(module_len < 80 ? module_len : 80), module,
        (int)(name_len < 80 ? name_len : 80), name);
}

static int take_line(struct machine *m, const char **line, int64_t *len)
{
    const unsigned char *end = memchr(m->bytes + m->at, '\n', (size_t)(m->n - m->at));

    if (!end)
        return damaged(m, "it ends in the middle of a name");
    *line = (const char *)m->bytes + m->at;
    *len = end - (m->bytes + m->at);
    m->at += *len + 1;
    return KD_OK;
}

static int global_line(struct machine *m)
{
    const char *module = "", *name = "";
    int64_t module_len = 0, name_len = 0;

    KD_TRY(take_line(m, &module, &module_len));
    KD_TRY(take_line(m, &name, &name_len));
    return push_global(m, module, module_len, name, name_len);
}

static int global_stack(struct machine *m)
{
    const struct kd_pickle_value *a, *b;
    int32_t module = 0, name = 0;

    KD_TRY(pop(m, &name));
    KD_TRY(pop(m, &module));
    a = &m->p->values[module];
    b = &m->p->values[name];
    if (a->kind != KD_PICKLE_STR || b->kind != KD_PICKLE_STR)
        return damaged(m, "a name is not text");
    return push_global(m, a->text, a->n, b->text, b->n);
}

/* A call with a tuple of arguments; OrderedDict() is a dictionary to be filled. */
static int reduce(struct machine *m)
{
    const struct kd_pickle_value *f, *a;
    int32_t args = 0, callee = 0, call;

    KD_TRY(pop(m, &args));
    KD_TRY(pop(m, &callee));
    f = &m->p->values[callee];
    a = &m->p->values[args];
    if (f->kind != KD_PICKLE_GLOBAL || a->kind != KD_PICKLE_TUPLE)
        return damaged(m, "it calls something that cannot be called");
    if (f->n == 0 && a->n == 0)
        return push_kind(m, KD_PICKLE_DICT);
    if (f->n == 0)
        return damaged(m, "an OrderedDict with contents from elsewhere is not read");
    KD_TRY(push_kind(m, KD_PICKLE_CALL));
    call = m->stack[m->height - 1];
    KD_TRY(add_item(m, call, -1, callee));
    return add_item(m, call, -1, args);
}

static int persistent(struct machine *m)
{
    int32_t id = 0;

    KD_TRY(pop(m, &id));
    KD_TRY(push_kind(m, KD_PICKLE_PERSISTENT));
    return add_item(m, m->stack[m->height - 1], -1, id);
}

/* Attributes of a dictionary (a state dict's version notes): passed over. */
static int build(struct machine *m)
{
    int32_t state, object;

    KD_TRY(pop(m, &state));
    return top_of_kind(m, KD_PICKLE_DICT, &object);
}

/* ---- memo ---- */

static int memo_put(struct machine *m, uint64_t index)
{
    if (m->height <= floor_of(m))
        return damaged(m, "it remembers the top of an empty stack");
    if (index >= (uint64_t)m->n)
        return damaged(m, "it has more to remember than it has bytes");
    KD_TRY(kd_grow(&m->memo, &m->cap_memo, (int64_t)index + 1, sizeof *m->memo));
    while (m->n_memo <= (int64_t)index)
        m->memo[m->n_memo++] = -1;
    m->n_memoized += m->memo[index] < 0;
    m->memo[index] = m->stack[m->height - 1];
    return KD_OK;
}

static int memo_get(struct machine *m, uint64_t index)
{
    if (index >= (uint64_t)m->n_memo || m->memo[index] < 0)
        return damaged(m, "it recalls what it did not remember");
    return push_index(m, m->memo[index]);
}

/* ---- instructions with operands ---- */

/* A text or bytes whose length has WIDTH bytes. */
static int text(struct machine *m, int width, enum kd_pickle_kind kind)
{
    const unsigned char *b = NULL;
    uint64_t len = 0;

    KD_TRY(take_number(m, width, &len));
    KD_TRY(take(m, len, &b));
    return push(m, (struct kd_pickle_value){
                       .kind = kind, .n = (int64_t)len, .text = (const char *)b});
}

/* An integer of any width, which must fit. */
static int long_int(struct machine *m, int width)
{
    const unsigned char *b = NULL;
    uint64_t len = 0, x;

    KD_TRY(take_number(m, width, &len));
    if (len > 8)
        return damaged(m, "an integer has more than 64 bits");
    KD_TRY(take(m, len, &b));
    x = kd_little(b, (int)len);
    if (len && len < 8 && (b[len - 1] & 0x80))
        x |= UINT64_MAX << (8 * len);
    return push_int(m, (int64_t)x);
}

static int plain_int(struct machine *m, int width)
{
    uint64_t x = 0;

    KD_TRY(take_number(m, width, &x));
    return push_int(m, width == 4 ? (int32_t)x : (int64_t)x);
}

static int memo_op(struct machine *m, int width, bool put)
{
    uint64_t index = 0;

    KD_TRY(take_number(m, width, &index));
    return put ? memo_put(m, index) : memo_get(m, index);
}

static int pop_any(struct machine *m)
{
    int32_t ignored;

    if (m->n_marks && m->height == floor_of(m)) {
        m->n_marks--;
        return KD_OK;
    }
    return pop(m, &ignored);
}

static int duplicate(struct machine *m)
{
    int32_t top = 0;

    KD_TRY(pop(m, &top));
    KD_TRY(push_index(m, top));
    return push_index(m, top);
}

static int set_mark(struct machine *m)
{
    KD_TRY(kd_grow(&m->marks, &m->cap_marks, m->n_marks + 1, sizeof *m->marks));
    m->marks[m->n_marks++] = (int32_t)m->height;
    return KD_OK;
}

static int protocol(struct machine *m)
{
    uint64_t x = 0;

    KD_TRY(take_number(m, 1, &x));
    return x <= HIGHEST_PROTOCOL ? KD_OK : damaged(m, "its protocol is not known");
}

static int skip(struct machine *m, int bytes)
{
    const unsigned char *b = NULL;

    return take(m, (uint64_t)bytes, &b);
}

static int skip_number(struct machine *m, int bytes)
{
    KD_TRY(skip(m, bytes));
    return push_kind(m, KD_PICKLE_OTHER);
}

/* Containers, calls and the stack. */
static int step_structure(struct machine *m, int op)
{
    const int32_t *v = NULL;
    int64_t n = 0;

    switch (op) {
    case OP_MARK:
        return set_mark(m);
    case OP_POP:
        return pop_any(m);
    case OP_POP_MARK:
        return pop_marked(m, &v, &n);
    case OP_DUP:
        return duplicate(m);
    case OP_EMPTY_LIST:
        return push_kind(m, KD_PICKLE_LIST);
    case OP_EMPTY_DICT:
        return push_kind(m, KD_PICKLE_DICT);
    case OP_EMPTY_TUPLE:
        return push_kind(m, KD_PICKLE_TUPLE);
    case OP_TUPLE1:
    case OP_TUPLE2:
    case OP_TUPLE3:
        return make_short_tuple(m, op - OP_TUPLE1 + 1);
    case OP_TUPLE:
        return make_marked_tuple(m);
    case OP_APPEND:
    case OP_APPENDS:
        return append(m, op == OP_APPENDS);
    case OP_SETITEM:
    case OP_SETITEMS:
        return set_items(m, op == OP_SETITEMS);
    case OP_GLOBAL:
        return global_line(m);
    case OP_STACK_GLOBAL:
        return global_stack(m);
    case OP_REDUCE:
    case OP_NEWOBJ:
        return reduce(m);
    case OP_BUILD:
        return build(m);
    case OP_BINPERSID:
        return persistent(m);
    default:
        return KD_FAIL(KD_EINPUT,
                       "%s: its pickle has instruction 0x%02x at byte %lld, which "
                       "PyTorch does not write: it is refused",
                       m->what, (unsigned)op, (long long)m->at - 1);
    }
}

/* Numbers, texts and the memo; the rest above. */
static int step(struct machine *m, int op)
{
    switch (op) {
    case OP_PROTO:
        return protocol(m);
    case OP_FRAME:
        return skip(m, 8);
    case OP_NONE:
        return push_kind(m, KD_PICKLE_OTHER);
    case OP_BINFLOAT:
        return skip_number(m, 8);
    case OP_NEWTRUE:
    case OP_NEWFALSE:
        return push_int(m, op == OP_NEWTRUE);
    case OP_BININT:
        return plain_int(m, 4);
    case OP_BININT1:
        return plain_int(m, 1);
    case OP_BININT2:
        return plain_int(m, 2);
    case OP_LONG1:
        return long_int(m, 1);
    case OP_LONG4:
        return long_int(m, 4);
    case OP_SHORT_BINUNICODE:
    case OP_SHORT_BINSTRING:
        return text(m, 1, KD_PICKLE_STR);
    case OP_BINUNICODE:
    case OP_BINSTRING:
        return text(m, 4, KD_PICKLE_STR);
    case OP_BINUNICODE8:
        return text(m, 8, KD_PICKLE_STR);
    case OP_SHORT_BINBYTES:
        return text(m, 1, KD_PICKLE_OTHER);
    case OP_BINBYTES:
        return text(m, 4, KD_PICKLE_OTHER);
    case OP_BINBYTES8:
    case OP_BYTEARRAY8:
        return text(m, 8, KD_PICKLE_OTHER);
    case OP_BINPUT:
    case OP_BINGET:
        return memo_op(m, 1, op == OP_BINPUT);
    case OP_LONG_BINPUT:
    case OP_LONG_BINGET:
        return memo_op(m, 4, op == OP_LONG_BINPUT);
    case OP_MEMOIZE:
        return memo_put(m, (uint64_t)m->n_memoized);
    default:
        return step_structure(m, op);
    }
}

static int execute(struct machine *m)
{
    for (;;) {
        const unsigned char *op = NULL;

        KD_TRY(take(m, 1, &op));
        if (*op == OP_STOP)
            return pop(m, &m->p->root);
        KD_TRY(step(m, *op));
    }
}

/* ---- the interface ---- */

int kd_pickle_read(const unsigned char *bytes, int64_t n, const char *const *globals,
                   const char *what, struct kd_pickle *out)
{
    struct machine m = {
        .bytes = bytes, .n = n, .globals = globals, .what = what, .p = out};
    int rc;

    *out = (struct kd_pickle){.root = -1};
    if (n > MAX_BYTES)
        return KD_FAIL(KD_EINPUT, "%s: its pickle has %lld bytes, weights need fewer",
                       what, (long long)n);
    rc = execute(&m);
    free(m.stack);
    free(m.marks);
    free(m.memo);
    return rc;
}

void kd_pickle_free(struct kd_pickle *p)
{
    free(p->values);
    free(p->items);
    *p = (struct kd_pickle){.root = -1};
}

const struct kd_pickle_value *kd_pickle_at(const struct kd_pickle *p,
                                           const struct kd_pickle_value *v, int64_t k)
{
    int32_t at = v->first;

    while (at >= 0 && k-- > 0)
        at = p->items[at].next;
    return at < 0 ? NULL : &p->values[p->items[at].value];
}

const struct kd_pickle_value *kd_pickle_get(const struct kd_pickle *p,
                                            const struct kd_pickle_value *dict,
                                            const char *key)
{
    const struct kd_pickle_value *found = NULL;

    for (int32_t at = dict->first; at >= 0; at = p->items[at].next)
        if (kd_pickle_is(&p->values[p->items[at].key], key))
            found = &p->values[p->items[at].value];
    return found;
}

bool kd_pickle_is(const struct kd_pickle_value *v, const char *text)
{
    return v && v->kind == KD_PICKLE_STR && v->n == (int64_t)strlen(text) &&
           !memcmp(v->text, text, (size_t)v->n);
}
