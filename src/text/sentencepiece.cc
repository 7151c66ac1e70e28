/* SPDX-License-Identifier: Apache-2.0 */
/* Reading SentencePiece model files, and the library's own encoding and decoding for
 * the tokenizers that are defined by it (Marian).
 *
 * libsentencepiece loads the file first and so judges whether it is sound.  Its
 * interface does not tell the model type, user-defined pieces or the character map, so
 * these are read from the message itself, a protocol buffer of a few known fields:
 * ModelProto {1: pieces {1 text, 2 score, 3 type}, 2: trainer {3 type, 24 space after
 * words}, 3: normaliser {2 character map, 3 space in front, 4 tidy spaces, 5 escape
 * them}}. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <exception>
#include <string>
#include <vector>

#include <sentencepiece_processor.h>

extern "C" {
#include "tokenizer_impl.h"

#include "kdhpc/base/mem.h"
}

namespace
{

/** What is left of a message. */
struct cursor {
    const char *p, *end;
};

/** One field: number, wire type, and its number or bytes. */
struct field {
    uint64_t number, wire, value;
    cursor bytes;
};

bool read_varint(cursor *c, uint64_t *out)
{
    *out = 0;
    for (int shift = 0; shift < 64 && c->p < c->end; shift += 7) {
        unsigned char b = (unsigned char)*c->p++;

        *out |= (uint64_t)(b & 0x7F) << shift;
        if (b < 0x80)
            return true;
    }
    return false;
}

bool read_fixed(cursor *c, int n, uint64_t *out)
{
    *out = 0;
    if (c->end - c->p < n)
        return false;
    for (int i = 0; i < n; i++)
        *out |= (uint64_t)(unsigned char)*c->p++ << (8 * i);
    return true;
}

/** Read the next field; false at the end or where the message is damaged. */
bool next_field(cursor *c, field *f)
{
    uint64_t key = 0;

    if (!read_varint(c, &key))
        return false;
    f->number = key >> 3;
    f->wire = key & 7;
    f->value = 0;
    f->bytes = cursor{c->p, c->p};
    switch (f->wire) {
    case 0:
        return read_varint(c, &f->value);
    case 1:
        return read_fixed(c, 8, &f->value);
    case 2:
        if (!read_varint(c, &f->value) || f->value > (uint64_t)(c->end - c->p))
            return false;
        f->bytes = cursor{c->p, c->p + f->value};
        c->p += f->value;
        return true;
    case 5:
        return read_fixed(c, 4, &f->value);
    default:
        return false;
    }
}

void read_piece(cursor c, struct kd_spm *out, int64_t i)
{
    field f;

    out->kind[i] = 1;
    out->at[i + 1] = out->at[i];
    while (next_field(&c, &f)) {
        if (f.number == 1 && f.wire == 2) {
            memcpy(out->bytes + out->at[i], f.bytes.p, (size_t)f.value);
            out->at[i + 1] = out->at[i] + (int64_t)f.value;
        } else if (f.number == 2 && f.wire == 5) {
            uint32_t bits = (uint32_t)f.value;

            memcpy(&out->score[i], &bits, sizeof bits);
        } else if (f.number == 3 && f.wire == 0) {
            out->kind[i] = (unsigned char)f.value;
        }
    }
}

/** A number of the trainer's (2) or the normaliser's (3) specification. */
void read_flag(uint64_t spec, uint64_t field, uint64_t value, struct kd_spm *out)
{
    if (spec == 2 && field == 3)
        out->model_type = (int)value;
    else if (spec == 2 && field == 24)
        out->suffix_space = value != 0;
    else if (spec == 3 && field == 3)
        out->dummy_prefix = value != 0;
    else if (spec == 3 && field == 4)
        out->tidy_space = value != 0;
    else if (spec == 3 && field == 5)
        out->escape_space = value != 0;
}

int read_specs(cursor c, struct kd_spm *out)
{
    field f, g;

    while (next_field(&c, &f)) {
        cursor inner = f.bytes;

        if (f.wire != 2 || (f.number != 2 && f.number != 3))
            continue;
        while (next_field(&inner, &g)) {
            if (g.wire == 0)
                read_flag(f.number, g.number, g.value, out);
            if (f.number == 3 && g.number == 2 && g.wire == 2 && g.value > 0 &&
                !out->charsmap) {
                out->charsmap_len = (int64_t)g.value;
                KD_TRY(kd_strndup(g.bytes.p, out->charsmap_len, &out->charsmap));
            }
        }
    }
    return KD_OK;
}

int read_message(const std::string &message, struct kd_spm *out)
{
    const char *p = message.data();
    cursor c = {p, p + message.size()};
    field f;
    int64_t n = 0;

    for (cursor d = c; next_field(&d, &f);)
        n += f.number == 1 && f.wire == 2;
    KD_TRY(kd_calloc(n + 1, sizeof *out->at, &out->at));
    KD_TRY(kd_calloc((int64_t)message.size() + 1, 1, &out->bytes));
    KD_TRY(kd_calloc(n, sizeof *out->score, &out->score));
    KD_TRY(kd_calloc(n, 1, &out->kind));
    for (cursor d = c; next_field(&d, &f);)
        if (f.number == 1 && f.wire == 2)
            read_piece(f.bytes, out, out->n++);
    return read_specs(c, out);
}

} // namespace

extern "C" int kd_spm_read(const char *path, struct kd_spm *out)
{
    *out = kd_spm{};
    out->model_type = 1;
    out->dummy_prefix = out->tidy_space = out->escape_space = true;
    try {
        sentencepiece::SentencePieceProcessor processor;
        const auto status = processor.Load(path);

        if (!status.ok())
            return KD_FAIL(KD_EINPUT, "%s: not a SentencePiece model: %s", path,
                           status.error_message());
        KD_TRY(read_message(processor.serialized_model_proto(), out));
        out->unk_id = processor.unk_id();
        return KD_OK;
    } catch (const std::exception &e) {
        return KD_FAIL(KD_ENOMEM, "%s: reading the model failed: %s", path, e.what());
    }
}

extern "C" void kd_spm_free(struct kd_spm *m)
{
    free(m->at);
    free(m->bytes);
    free(m->score);
    free(m->kind);
    free(m->charsmap);
    *m = kd_spm{};
}

struct kd_spm_processor {
    sentencepiece::SentencePieceProcessor processor;
};

extern "C" int kd_spm_open(const char *path, struct kd_spm_processor **out)
{
    *out = nullptr;
    try {
        auto *p = new kd_spm_processor;
        const auto status = p->processor.Load(path);

        if (!status.ok()) {
            delete p;
            return KD_FAIL(KD_EINPUT, "%s: not a SentencePiece model: %s", path,
                           status.error_message());
        }
        *out = p;
        return KD_OK;
    } catch (const std::exception &e) {
        return KD_FAIL(KD_ENOMEM, "%s: reading the model failed: %s", path, e.what());
    }
}

extern "C" void kd_spm_close(struct kd_spm_processor *p)
{
    delete p;
}

extern "C" int kd_spm_encode(const struct kd_spm_processor *p, const char *text,
                             int64_t len, struct kd_str *out)
{
    try {
        std::vector<std::string> pieces;
        const auto status =
            p->processor.Encode(absl::string_view(text, (size_t)len), &pieces);

        if (!status.ok())
            return KD_FAIL(KD_EINTERNAL, "SentencePiece: %s", status.error_message());
        for (const std::string &piece : pieces) {
            KD_TRY(kd_str_append(out, piece.data(), (int64_t)piece.size()));
            KD_TRY(kd_str_append(out, KD_PIECE_END, 1));
        }
        return KD_OK;
    } catch (const std::exception &e) {
        return KD_FAIL(KD_ENOMEM, "SentencePiece: encoding failed: %s", e.what());
    }
}

extern "C" int kd_spm_decode(const struct kd_spm_processor *p, const char *pieces,
                             int64_t len, struct kd_str *out)
{
    try {
        std::vector<std::string> list;
        std::string text;

        for (int64_t i = 0; i < len; i += (int64_t)list.back().size() + 1)
            list.emplace_back(pieces + i);

        const auto status = p->processor.Decode(list, &text);

        if (!status.ok())
            return KD_FAIL(KD_EINTERNAL, "SentencePiece: %s", status.error_message());
        return kd_str_append(out, text.data(), (int64_t)text.size());
    } catch (const std::exception &e) {
        return KD_FAIL(KD_ENOMEM, "SentencePiece: decoding failed: %s", e.what());
    }
}
