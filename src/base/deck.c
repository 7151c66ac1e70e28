/* SPDX-License-Identifier: Apache-2.0 */
/* Decks over libyaml's event stream.
 *
 * The grammar is one block mapping of scalars and lists of scalars; everything else of
 * YAML (nesting, anchors, several documents) is refused with its line, because a deck
 * that another tool reads differently would be a trap.  A deck is read into entries of
 * its own first; those of its includes are put before them at the end. */
#include "kdhpc/base/deck.h"

#include "kdhpc/base/mem.h"
#include "kdhpc/base/str.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <yaml.h>

enum { MAX_INCLUDE_DEPTH = 8 };

struct reader {
    yaml_parser_t parser;
    const char *path;
};

/* ---- events ---- */

static int next_event(struct reader *r, yaml_event_t *event)
{
    if (yaml_parser_parse(&r->parser, event))
        return KD_OK;
    return KD_FAIL(KD_EUSAGE, "%s:%zu: not valid YAML: %s", r->path,
                   r->parser.problem_mark.line + 1,
                   r->parser.problem ? r->parser.problem : "unknown problem");
}

static int unexpected(struct reader *r, const yaml_event_t *event, const char *what)
{
    return KD_FAIL(KD_EUSAGE, "%s:%zu: %s; a deck is flat: 'option: value' lines",
                   r->path, event->start_mark.line + 1, what);
}

/* ---- entries ---- */

static void entry_free(struct kd_deck_entry *e)
{
    for (int64_t i = 0; i < e->n; i++)
        free(e->items[i]);
    free(e->items);
    free(e->key);
    free(e->origin);
}

static int add_item(struct kd_deck_entry *e, int64_t *cap, const yaml_event_t *event)
{
    KD_TRY(kd_grow(&e->items, cap, e->n + 1, sizeof *e->items));
    KD_TRY(kd_strndup((const char *)event->data.scalar.value,
                      (int64_t)event->data.scalar.length, &e->items[e->n]));
    e->n++;
    return KD_OK;
}

static bool is_null(const yaml_event_t *event)
{
    const char *s = (const char *)event->data.scalar.value;

    return event->data.scalar.style == YAML_PLAIN_SCALAR_STYLE &&
           (!*s || !strcmp(s, "~") || !strcmp(s, "null"));
}

/* The value behind a key: a scalar, or a list of scalars up to its end. */
static int read_value(struct reader *r, struct kd_deck_entry *e)
{
    yaml_event_t event;
    int64_t cap = 0;
    int rc = KD_OK;
    bool more = true;

    while (more && !rc) {
        KD_TRY(next_event(r, &event));
        more = e->is_list;
        if (event.type == YAML_SCALAR_EVENT) {
            e->is_null = !e->is_list && is_null(&event);
            rc = add_item(e, &cap, &event);
        } else if (event.type == YAML_SEQUENCE_START_EVENT && !e->is_list) {
            e->is_list = more = true;
        } else if (event.type == YAML_SEQUENCE_END_EVENT) {
            more = false;
        } else {
            rc = unexpected(r, &event, "a value that is neither a scalar nor a list");
        }
        yaml_event_delete(&event);
    }
    return rc;
}

static int start_entry(struct reader *r, const yaml_event_t *event,
                       struct kd_deck_entry *e)
{
    struct kd_str origin = {0};

    KD_TRY(kd_strdup((const char *)event->data.scalar.value, &e->key));
    for (char *at = e->key; *at; at++) {
        if (*at == '-')
            *at = '_';
    }
    KD_TRY(kd_str_printf(&origin, "%s:%zu", r->path, event->start_mark.line + 1));
    e->origin = origin.data;
    return KD_OK;
}

static int read_entry(struct reader *r, const yaml_event_t *key, struct kd_deck *own)
{
    const struct kd_deck_entry *before;
    struct kd_deck_entry e = {0};
    int rc = KD_OK;

    KD_GO(start_entry(r, key, &e));
    before = kd_deck_find(own, e.key);
    if (before) {
        rc = KD_FAIL(KD_EUSAGE, "option %s (%s) was already given at %s", e.key,
                     e.origin, before->origin);
        goto out;
    }
    KD_GO(read_value(r, &e));
    KD_GO(kd_grow(&own->entries, &own->cap, own->n + 1, sizeof *own->entries));
    own->entries[own->n++] = e;
    return KD_OK;
out:
    entry_free(&e);
    return rc;
}

/* ---- one file ---- */

/* Everything up to the end of the stream; the mapping may be missing (an empty deck).
 */
static int read_stream(struct reader *r, struct kd_deck *own)
{
    bool in_mapping = false, ended = false;
    int documents = 0, rc = KD_OK;

    while (!ended && !rc) {
        yaml_event_t event;

        KD_TRY(next_event(r, &event));
        switch (event.type) {
        case YAML_STREAM_END_EVENT:
            ended = true;
            break;
        case YAML_DOCUMENT_START_EVENT:
            if (documents++)
                rc = unexpected(r, &event, "a second document");
            break;
        case YAML_MAPPING_START_EVENT:
            in_mapping = true;
            break;
        case YAML_MAPPING_END_EVENT:
            in_mapping = false;
            break;
        case YAML_STREAM_START_EVENT:
        case YAML_DOCUMENT_END_EVENT:
            break;
        case YAML_SCALAR_EVENT:
            if (in_mapping)
                rc = read_entry(r, &event, own);
            else if (!is_null(&event))
                rc = unexpected(r, &event, "a lone value");
            break;
        default:
            rc = unexpected(r, &event, "not an option name");
        }
        yaml_event_delete(&event);
    }
    return rc;
}

static int read_file(const char *path, struct kd_deck *own)
{
    struct reader r = {.path = path};
    FILE *f = fopen(path, "rb");
    int rc;

    if (!f)
        return KD_FAIL(KD_EINPUT, "cannot open deck %s: %s", path, strerror(errno));
    if (!yaml_parser_initialize(&r.parser)) {
        fclose(f);
        return KD_FAIL(KD_ENOMEM, "no memory to read deck %s", path);
    }
    yaml_parser_set_input_file(&r.parser, f);
    rc = read_stream(&r, own);
    yaml_parser_delete(&r.parser);
    fclose(f);
    return rc;
}

/* ---- includes ---- */

static int read_deck(const char *path, int depth, struct kd_deck *out);

/* NAME as seen from the directory of the deck at PATH. */
static int include_path(const char *path, const char *name, char **out)
{
    const char *slash = strrchr(path, '/');
    char *dir = NULL;
    int rc;

    if (*name == '/' || !slash)
        return kd_strdup(name, out);
    KD_TRY(kd_strndup(path, slash + 1 - path, &dir));
    rc = kd_path_join(dir, name, out);
    free(dir);
    return rc;
}

static int read_includes(const char *path, const struct kd_deck *own, int depth,
                         struct kd_deck *out)
{
    const struct kd_deck_entry *e = kd_deck_find(own, "include");

    if (!e || e->is_null)
        return KD_OK;
    if (depth >= MAX_INCLUDE_DEPTH)
        return KD_FAIL(KD_EUSAGE, "%s: decks include each other more than %d deep",
                       e->origin, MAX_INCLUDE_DEPTH);
    for (int64_t i = 0; i < e->n; i++) {
        char *included = NULL;
        int rc = include_path(path, e->items[i], &included);

        if (!rc)
            rc = read_deck(included, depth + 1, out);
        free(included);
        KD_TRY(rc);
    }
    return KD_OK;
}

/* Move the entries of OWN but `include` behind those of OUT. */
static int move_entries(struct kd_deck *own, struct kd_deck *out)
{
    KD_TRY(kd_grow(&out->entries, &out->cap, out->n + own->n, sizeof *out->entries));
    for (int64_t i = 0; i < own->n; i++) {
        if (!strcmp(own->entries[i].key, "include"))
            entry_free(&own->entries[i]);
        else
            out->entries[out->n++] = own->entries[i];
    }
    own->n = 0;
    return KD_OK;
}

static int read_deck(const char *path, int depth, struct kd_deck *out)
{
    struct kd_deck own = {0};
    int rc = KD_OK;

    KD_GO(read_file(path, &own));
    KD_GO(read_includes(path, &own, depth, out));
    KD_GO(move_entries(&own, out));
out:
    kd_deck_free(&own);
    return rc;
}

int kd_deck_read(const char *path, struct kd_deck *out)
{
    return read_deck(path, 0, out);
}

const struct kd_deck_entry *kd_deck_find(const struct kd_deck *deck, const char *key)
{
    for (int64_t i = deck->n - 1; i >= 0; i--) {
        if (!strcmp(deck->entries[i].key, key))
            return &deck->entries[i];
    }
    return NULL;
}

void kd_deck_free(struct kd_deck *deck)
{
    for (int64_t i = 0; i < deck->n; i++)
        entry_free(&deck->entries[i]);
    free(deck->entries);
    *deck = (struct kd_deck){0};
}
