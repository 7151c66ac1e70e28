/* SPDX-License-Identifier: Apache-2.0 */
/* Tensors of a PyTorch file (torch.save since 1.6): a zip archive of a pickle, which
 * says how the tensors lie in storages, and a member for each storage.
 *
 * The pickle is read as data (pickle.c) and may mention only the names below.  A tensor
 * is a view: storage, offset, sizes, strides; several may share a storage (tied
 * weights), and they need not be contiguous.  Nothing is believed before it was checked
 * against the member's size.  Beside tensors a state dict may hold other things, which
 * are passed over; training scripts wrap it in a dictionary of their own.  Formats of
 * before 1.6 are refused by name.  Caller: weights.c. */
#include "pickle.h"
#include "weights_impl.h"
#include "zip.h"

#include "kdhpc/base/str.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* Names that a pickle may mention, and where they begin to mean a storage type. */
enum {
    ORDERED_DICT,
    REBUILD_TENSOR,
    REBUILD_TENSOR_V2,
    REBUILD_PARAMETER,
    SIZE,
    FIRST_STORAGE
};

static const char *const globals[] = {
    "collections OrderedDict", "torch._utils _rebuild_tensor",
    "torch._utils _rebuild_tensor_v2", "torch._utils _rebuild_parameter", "torch Size",
    "torch FloatStorage", "torch HalfStorage", "torch BFloat16Storage",
    "torch DoubleStorage", "torch LongStorage", "torch IntStorage",
    "torch ShortStorage", "torch CharStorage", "torch ByteStorage", "torch BoolStorage",
    /* harmless company of tensors */
    "torch device", "torch float32", "torch float16", "torch bfloat16", "torch float64",
    "torch int64", NULL};

/* Of the storages, in that order. */
static const char *const storage_dtypes[] = {"F32", "F16", "BF16", "F64", "I64",
                                             "I32", "I16", "I8",   "U8",  "BOOL"};

enum { N_STORAGES = sizeof storage_dtypes / sizeof *storage_dtypes };

struct reader {
    struct kd_weights *w;
    const char *path;
    int64_t n_bytes;
    struct kd_zip zip;
    struct kd_pickle pickle;
    const char *prefix; /* folder of all members, with its '/' */
    int64_t prefix_len;
    struct kd_str name; /* of a member, to look it up */
};

/* ---- the archive ---- */

static int find_member(struct reader *r, const char *name, int64_t len,
                       const struct kd_zip_member **out)
{
    kd_str_clear(&r->name);
    KD_TRY(kd_str_append(&r->name, r->prefix, r->prefix_len));
    KD_TRY(kd_str_append(&r->name, name, len));
    *out = kd_zip_find(&r->zip, r->name.data, r->name.len);
    if (*out && !(*out)->data)
        return KD_FAIL(KD_EINPUT,
                       "%s: member %s is compressed or encrypted; save the weights "
                       "again with torch.save",
                       r->path, r->name.data);
    return KD_OK;
}

/* The one folder that holds data.pkl. */
static int find_prefix(struct reader *r)
{
    static const char tail[] = "/data.pkl";
    const int64_t n_tail = sizeof tail - 1;

    for (int64_t i = 0; i < r->zip.n && !r->prefix; i++) {
        const struct kd_zip_member *m = &r->zip.members[i];
        int64_t folder = m->name_len - n_tail;

        if (folder > 0 && !memcmp(m->name + folder, tail, (size_t)n_tail) &&
            !memchr(m->name, '/', (size_t)folder)) {
            r->prefix = m->name;
            r->prefix_len = folder + 1;
        }
    }
    if (!r->prefix)
        return KD_FAIL(KD_EINPUT,
                       "%s is a zip archive without data.pkl: not weights of PyTorch",
                       r->path);
    return KD_OK;
}

static int check_byte_order(struct reader *r)
{
    static const char name[] = "byteorder", little[] = "little";
    const struct kd_zip_member *m = NULL;

    KD_TRY(find_member(r, name, sizeof name - 1, &m));
    if (m && (m->n_bytes != sizeof little - 1 ||
              memcmp(m->data, little, sizeof little - 1) != 0))
        return KD_FAIL(KD_EINPUT, "%s was written on a big-endian machine", r->path);
    return KD_OK;
}

/* ---- a tensor ---- */

static int bad_tensor(const struct reader *r, const struct kd_pickle_value *key,
                      const char *why)
{
    return KD_FAIL(KD_EINPUT, "%s: tensor %.*s %s", r->path,
                   (int)(key->n < 160 ? key->n : 160), key->text, why);
}

static bool is_call(const struct reader *r, const struct kd_pickle_value *v, int64_t of)
{
    const struct kd_pickle_value *f =
        v && v->kind == KD_PICKLE_CALL ? kd_pickle_at(&r->pickle, v, 0) : NULL;

    return f && f->n == of;
}

/* The tensor in V (a parameter is one with a coat), or NULL. */
static const struct kd_pickle_value *tensor_of(const struct reader *r,
                                               const struct kd_pickle_value *v)
{
    if (is_call(r, v, REBUILD_PARAMETER))
        v = kd_pickle_at(&r->pickle, kd_pickle_at(&r->pickle, v, 1), 0);
    return is_call(r, v, REBUILD_TENSOR) || is_call(r, v, REBUILD_TENSOR_V2) ? v : NULL;
}

/* The bytes of the storage that V stands for: ("storage", type, key, place, count). */
static int open_storage(struct reader *r, const struct kd_pickle_value *key,
                        const struct kd_pickle_value *v, struct kd_weight *t,
                        int64_t *n_values)
{
    const struct kd_pickle_value *id =
        v && v->kind == KD_PICKLE_PERSISTENT ? kd_pickle_at(&r->pickle, v, 0) : NULL;
    const struct kd_pickle_value *type, *file, *count;
    const struct kd_zip_member *m = NULL;
    struct kd_str name = {0};
    int64_t bytes = 0;
    int rc;

    if (!id || id->kind != KD_PICKLE_TUPLE || id->n < 5 ||
        !kd_pickle_is(kd_pickle_at(&r->pickle, id, 0), "storage"))
        return bad_tensor(r, key, "has no storage");
    type = kd_pickle_at(&r->pickle, id, 1);
    file = kd_pickle_at(&r->pickle, id, 2);
    count = kd_pickle_at(&r->pickle, id, 4);
    if (type->kind != KD_PICKLE_GLOBAL || type->n < FIRST_STORAGE ||
        type->n >= FIRST_STORAGE + N_STORAGES || file->kind != KD_PICKLE_STR ||
        count->kind != KD_PICKLE_INT || count->n < 0)
        return bad_tensor(r, key, "has a storage that is not one");
    (void)kd_weight_set_dtype(t, storage_dtypes[type->n - FIRST_STORAGE]);
    KD_GO(kd_str_append(&name, "data/", 5));
    KD_GO(kd_str_append(&name, file->text, file->n));
    KD_GO(find_member(r, name.data, name.len, &m));
    if (!m)
        rc = bad_tensor(r, key, "has a storage that is not in the archive");
    else if (__builtin_mul_overflow(count->n, t->item_bytes, &bytes) ||
             bytes != m->n_bytes)
        rc = bad_tensor(r, key, "has a storage of another size than its pickle says");
    else
        t->data = m->data;
    *n_values = count->n;
out:
    kd_str_free(&name);
    return rc;
}

/* The tuple of integers in V (torch.Size is a tuple with a coat), or NULL. */
static const struct kd_pickle_value *numbers_of(const struct reader *r,
                                                const struct kd_pickle_value *v)
{
    if (is_call(r, v, SIZE))
        v = kd_pickle_at(&r->pickle, kd_pickle_at(&r->pickle, v, 1), 0);
    return v && v->kind == KD_PICKLE_TUPLE ? v : NULL;
}

/* Sizes and strides; *LAST is the largest index of a value, from the tensor's first. */
static int read_shape(const struct reader *r, const struct kd_pickle_value *key,
                      const struct kd_pickle_value *sizes,
                      const struct kd_pickle_value *strides, struct kd_weight *t,
                      int64_t *last)
{
    if (!sizes || !strides || sizes->n != strides->n || sizes->n > 64)
        return bad_tensor(r, key, "has sizes and strides that do not match");
    t->ndim = (int)sizes->n;
    t->count = 1;
    *last = 0;
    for (int i = 0; i < t->ndim; i++) {
        const struct kd_pickle_value *size = kd_pickle_at(&r->pickle, sizes, i);
        const struct kd_pickle_value *stride = kd_pickle_at(&r->pickle, strides, i);
        int64_t reach;

        if (size->kind != KD_PICKLE_INT || stride->kind != KD_PICKLE_INT ||
            size->n < 0 || stride->n < 0 ||
            __builtin_mul_overflow(t->count, size->n, &t->count) ||
            __builtin_mul_overflow(size->n ? size->n - 1 : 0, stride->n, &reach) ||
            __builtin_add_overflow(*last, reach, last))
            return bad_tensor(r, key, "has sizes or strides that are not valid");
        if (i < KD_MAX_DIMS) {
            t->shape[i] = size->n;
            t->stride[i] = stride->n;
        }
    }
    return KD_OK;
}

static int read_tensor(struct reader *r, const struct kd_pickle_value *key,
                       const struct kd_pickle_value *v)
{
    struct kd_weight t = {.path = r->path};
    const struct kd_pickle_value *args = kd_pickle_at(&r->pickle, v, 1), *offset;
    int64_t n_values = 0, last = 0, bytes;

    if (args->n < 4)
        return bad_tensor(r, key, "is described by too little");
    offset = kd_pickle_at(&r->pickle, args, 1);
    KD_TRY(open_storage(r, key, kd_pickle_at(&r->pickle, args, 0), &t, &n_values));
    KD_TRY(read_shape(r, key, numbers_of(r, kd_pickle_at(&r->pickle, args, 2)),
                      numbers_of(r, kd_pickle_at(&r->pickle, args, 3)), &t, &last));
    if (offset->kind != KD_PICKLE_INT || offset->n < 0 || offset->n > n_values ||
        (t.count && last >= n_values - offset->n) ||
        __builtin_mul_overflow(t.count, t.item_bytes, &bytes))
        return bad_tensor(r, key, "reaches beyond its storage");
    if (bytes > r->n_bytes) /* strides of 0 can make any size of one value */
        return bad_tensor(r, key, "is larger than the file that holds it");
    if (memchr(key->text, '\0', (size_t)key->n) ||
        kd_utf8_invalid_at(key->text, key->n) >= 0)
        return bad_tensor(r, key, "has a name that is not text");
    t.data += offset->n * t.item_bytes;
    return kd_weights_add(r->w, &t, key->text, key->n);
}

/* ---- the whole ---- */

/* Add the tensors of DICT; whatever else it holds is passed over. */
static int add_tensors(struct reader *r, const struct kd_pickle_value *dict)
{
    const struct kd_pickle *p = &r->pickle;

    for (int32_t at = dict->first; at >= 0; at = p->items[at].next) {
        const struct kd_pickle_value *key = &p->values[p->items[at].key];
        const struct kd_pickle_value *tensor =
            tensor_of(r, &p->values[p->items[at].value]);

        if (tensor && key->kind == KD_PICKLE_STR)
            KD_TRY(read_tensor(r, key, tensor));
    }
    return KD_OK;
}

static int add_state(struct reader *r)
{
    static const char *const wrappers[] = {"state_dict", "model_state_dict", "model"};
    const struct kd_pickle_value *root = &r->pickle.values[r->pickle.root];
    int first = r->w->n;

    if (root->kind == KD_PICKLE_DICT)
        KD_TRY(add_tensors(r, root));
    for (size_t i = 0; i < sizeof wrappers / sizeof *wrappers && r->w->n == first &&
                       root->kind == KD_PICKLE_DICT;
         i++) {
        const struct kd_pickle_value *inner =
            kd_pickle_get(&r->pickle, root, wrappers[i]);

        if (inner && inner->kind == KD_PICKLE_DICT)
            KD_TRY(add_tensors(r, inner));
    }
    if (r->w->n == first)
        return KD_FAIL(KD_EINPUT, "%s holds no dictionary of tensors", r->path);
    return KD_OK;
}

static int refuse_old(const struct kd_weights_file *f)
{
    enum { TAR_MAGIC_AT = 257 };
    bool tar = f->n_bytes >= TAR_MAGIC_AT + 5 &&
               !memcmp(f->bytes + TAR_MAGIC_AT, "ustar", 5),
         pickle = f->n_bytes >= 2 && f->bytes[0] == 0x80;

    if (tar || pickle)
        return KD_FAIL(KD_EINPUT,
                       "%s is in PyTorch's %s format of before 1.6, which is not read: "
                       "load it with torch.load and write it again with torch.save",
                       f->path, tar ? "tar" : "old");
    return KD_FAIL(KD_EINPUT, "%s is not a file of torch.save", f->path);
}

int kd_torchbin_parse(struct kd_weights *w, const struct kd_weights_file *f)
{
    static const char pkl[] = "data.pkl";
    struct reader r = {.w = w, .path = f->path, .n_bytes = f->n_bytes};
    const struct kd_zip_member *m = NULL;
    int rc;

    if (!kd_zip_begins(f->bytes, f->n_bytes))
        return refuse_old(f);
    KD_GO(kd_zip_read(f->bytes, f->n_bytes, f->path, &r.zip));
    KD_GO(find_prefix(&r));
    KD_GO(check_byte_order(&r));
    KD_GO(find_member(&r, pkl, sizeof pkl - 1, &m));
    KD_GO(kd_pickle_read(m->data, m->n_bytes, globals, f->path, &r.pickle));
    rc = add_state(&r);
out:
    kd_str_free(&r.name);
    kd_pickle_free(&r.pickle);
    kd_zip_free(&r.zip);
    return rc;
}
