/* SPDX-License-Identifier: Apache-2.0 */
/* What Moses rules know of characters and abbreviations.
 *
 * Written by tests/golden/make_moses_tables.py from the tables of sacremoses, under the
 * MIT licence, which come from an older Unicode than utf8proc's; lower case is told as
 * what differs from category Ll.  A # after an abbreviation: only before a number. */
#include "moses_impl.h"

#include <stddef.h>

const struct kd_char_range KD_MOSES_ALPHA[] = {
    {0x41, 0x5A},       {0x61, 0x7A},       {0xAA, 0xAA},       {0xB5, 0xB5},
    {0xBA, 0xBA},       {0xC0, 0xD6},       {0xD8, 0xF6},       {0xF8, 0x2C1},
    {0x2C6, 0x2D1},     {0x2E0, 0x2E4},     {0x2EC, 0x2EC},     {0x2EE, 0x2EE},
    {0x345, 0x345},     {0x370, 0x374},     {0x376, 0x377},     {0x37A, 0x37D},
    {0x37F, 0x37F},     {0x386, 0x386},     {0x388, 0x38A},     {0x38C, 0x38C},
    {0x38E, 0x3A1},     {0x3A3, 0x3F5},     {0x3F7, 0x481},     {0x48A, 0x52F},
    {0x531, 0x556},     {0x559, 0x559},     {0x561, 0x587},     {0x5B0, 0x5BD},
    {0x5BF, 0x5BF},     {0x5C1, 0x5C2},     {0x5C4, 0x5C5},     {0x5C7, 0x5C7},
    {0x5D0, 0x5EA},     {0x5F0, 0x5F2},     {0x610, 0x61A},     {0x620, 0x657},
    {0x659, 0x65F},     {0x66E, 0x6D3},     {0x6D5, 0x6DC},     {0x6E1, 0x6E8},
    {0x6ED, 0x6EF},     {0x6FA, 0x6FC},     {0x6FF, 0x6FF},     {0x710, 0x73F},
    {0x74D, 0x7B1},     {0x7CA, 0x7EA},     {0x7F4, 0x7F5},     {0x7FA, 0x7FA},
    {0x800, 0x817},     {0x81A, 0x82C},     {0x840, 0x858},     {0x8A0, 0x8B2},
    {0x8E4, 0x8E9},     {0x8F0, 0x950},     {0x955, 0x963},     {0x971, 0x983},
    {0x985, 0x98C},     {0x98F, 0x990},     {0x993, 0x9A8},     {0x9AA, 0x9B0},
    {0x9B2, 0x9B2},     {0x9B6, 0x9B9},     {0x9BC, 0x9C4},     {0x9C7, 0x9C8},
    {0x9CB, 0x9CE},     {0x9D7, 0x9D7},     {0x9DC, 0x9DD},     {0x9DF, 0x9E3},
    {0x9F0, 0x9F1},     {0xA01, 0xA03},     {0xA05, 0xA0A},     {0xA0F, 0xA10},
    {0xA13, 0xA28},     {0xA2A, 0xA30},     {0xA32, 0xA33},     {0xA35, 0xA36},
    {0xA38, 0xA39},     {0xA3C, 0xA3C},     {0xA3E, 0xA42},     {0xA47, 0xA48},
    {0xA4B, 0xA4D},     {0xA51, 0xA51},     {0xA59, 0xA5C},     {0xA5E, 0xA5E},
    {0xA70, 0xA75},     {0xA81, 0xA83},     {0xA85, 0xA8D},     {0xA8F, 0xA91},
    {0xA93, 0xAA8},     {0xAAA, 0xAB0},     {0xAB2, 0xAB3},     {0xAB5, 0xAB9},
    {0xABC, 0xAC5},     {0xAC7, 0xAC9},     {0xACB, 0xACD},     {0xAD0, 0xAD0},
    {0xAE0, 0xAE3},     {0xAFD, 0xAFF},     {0xB01, 0xB03},     {0xB05, 0xB0C},
    {0xB0F, 0xB10},     {0xB13, 0xB28},     {0xB2A, 0xB30},     {0xB32, 0xB33},
    {0xB35, 0xB39},     {0xB3C, 0xB44},     {0xB47, 0xB48},     {0xB4B, 0xB4D},
    {0xB56, 0xB57},     {0xB5C, 0xB5D},     {0xB5F, 0xB63},     {0xB71, 0xB71},
    {0xB82, 0xB83},     {0xB85, 0xB8A},     {0xB8E, 0xB90},     {0xB92, 0xB95},
    {0xB99, 0xB9A},     {0xB9C, 0xB9C},     {0xB9E, 0xB9F},     {0xBA3, 0xBA4},
    {0xBA8, 0xBAA},     {0xBAE, 0xBB9},     {0xBBE, 0xBC2},     {0xBC6, 0xBC8},
    {0xBCA, 0xBCD},     {0xBD0, 0xBD0},     {0xBD7, 0xBD7},     {0xC00, 0xC03},
    {0xC05, 0xC0C},     {0xC0E, 0xC10},     {0xC12, 0xC28},     {0xC2A, 0xC39},
    {0xC3D, 0xC44},     {0xC46, 0xC48},     {0xC4A, 0xC4D},     {0xC55, 0xC56},
    {0xC58, 0xC59},     {0xC60, 0xC63},     {0xC81, 0xC83},     {0xC85, 0xC8C},
    {0xC8E, 0xC90},     {0xC92, 0xCA8},     {0xCAA, 0xCB3},     {0xCB5, 0xCB9},
    {0xCBC, 0xCC4},     {0xCC6, 0xCC8},     {0xCCA, 0xCCD},     {0xCD5, 0xCD6},
    {0xCDE, 0xCDE},     {0xCE0, 0xCE3},     {0xCF1, 0xCF2},     {0xD01, 0xD03},
    {0xD05, 0xD0C},     {0xD0E, 0xD10},     {0xD12, 0xD44},     {0xD46, 0xD48},
    {0xD4A, 0xD4E},     {0xD57, 0xD57},     {0xD60, 0xD63},     {0xD7A, 0xD7F},
    {0xD82, 0xD83},     {0xD85, 0xD96},     {0xD9A, 0xDB1},     {0xDB3, 0xDBB},
    {0xDBD, 0xDBD},     {0xDC0, 0xDC6},     {0xDCA, 0xDCA},     {0xDCF, 0xDD4},
    {0xDD6, 0xDD6},     {0xDD8, 0xDDF},     {0xDF2, 0xDF3},     {0xE01, 0xE3A},
    {0xE40, 0xE46},     {0xE4D, 0xE4D},     {0xE81, 0xE82},     {0xE84, 0xE84},
    {0xE87, 0xE88},     {0xE8A, 0xE8A},     {0xE8D, 0xE8D},     {0xE94, 0xE97},
    {0xE99, 0xE9F},     {0xEA1, 0xEA3},     {0xEA5, 0xEA5},     {0xEA7, 0xEA7},
    {0xEAA, 0xEAB},     {0xEAD, 0xEBD},     {0xEC0, 0xEC4},     {0xEC6, 0xEC6},
    {0xECD, 0xECD},     {0xEDC, 0xEDF},     {0xF00, 0xF00},     {0xF40, 0xF47},
    {0xF49, 0xF6C},     {0xF71, 0xF81},     {0xF88, 0xF97},     {0xF99, 0xFBC},
    {0x1000, 0x1036},   {0x1038, 0x1039},   {0x103B, 0x103F},   {0x1050, 0x1062},
    {0x1065, 0x1068},   {0x106E, 0x1086},   {0x108E, 0x108E},   {0x109C, 0x109D},
    {0x10A0, 0x10C5},   {0x10C7, 0x10C7},   {0x10CD, 0x10CD},   {0x10D0, 0x10FA},
    {0x10FC, 0x1248},   {0x124A, 0x124D},   {0x1250, 0x1256},   {0x1258, 0x1258},
    {0x125A, 0x125D},   {0x1260, 0x1288},   {0x128A, 0x128D},   {0x1290, 0x12B0},
    {0x12B2, 0x12B5},   {0x12B8, 0x12BE},   {0x12C0, 0x12C0},   {0x12C2, 0x12C5},
    {0x12C8, 0x12D6},   {0x12D8, 0x1310},   {0x1312, 0x1315},   {0x1318, 0x135A},
    {0x135F, 0x135F},   {0x1380, 0x138F},   {0x13A0, 0x13F4},   {0x1401, 0x166C},
    {0x166F, 0x167F},   {0x1681, 0x169A},   {0x16A0, 0x16EA},   {0x16EE, 0x16F8},
    {0x1700, 0x170C},   {0x170E, 0x1714},   {0x1720, 0x1733},   {0x1740, 0x1753},
    {0x1760, 0x176C},   {0x176E, 0x1770},   {0x1772, 0x1773},   {0x1780, 0x17B3},
    {0x17B6, 0x17C8},   {0x17D7, 0x17D7},   {0x17DC, 0x17DC},   {0x1820, 0x1877},
    {0x1880, 0x18AA},   {0x18B0, 0x18F5},   {0x1900, 0x191E},   {0x1920, 0x192B},
    {0x1930, 0x1938},   {0x1950, 0x196D},   {0x1970, 0x1974},   {0x1980, 0x19AB},
    {0x19B0, 0x19C9},   {0x1A00, 0x1A1B},   {0x1A20, 0x1A5E},   {0x1A61, 0x1A74},
    {0x1AA7, 0x1AA7},   {0x1B00, 0x1B33},   {0x1B35, 0x1B43},   {0x1B45, 0x1B4B},
    {0x1B80, 0x1BA9},   {0x1BAB, 0x1BAF},   {0x1BBA, 0x1BE5},   {0x1BE7, 0x1BF1},
    {0x1C00, 0x1C35},   {0x1C37, 0x1C37},   {0x1C4D, 0x1C4F},   {0x1C5A, 0x1C7D},
    {0x1CE9, 0x1CEC},   {0x1CEE, 0x1CF3},   {0x1CF5, 0x1CF6},   {0x1D00, 0x1DBF},
    {0x1DE7, 0x1DF4},   {0x1E00, 0x1F15},   {0x1F18, 0x1F1D},   {0x1F20, 0x1F45},
    {0x1F48, 0x1F4D},   {0x1F50, 0x1F57},   {0x1F59, 0x1F59},   {0x1F5B, 0x1F5B},
    {0x1F5D, 0x1F5D},   {0x1F5F, 0x1F7D},   {0x1F80, 0x1FB4},   {0x1FB6, 0x1FBC},
    {0x1FBE, 0x1FBE},   {0x1FC2, 0x1FC4},   {0x1FC6, 0x1FCC},   {0x1FD0, 0x1FD3},
    {0x1FD6, 0x1FDB},   {0x1FE0, 0x1FEC},   {0x1FF2, 0x1FF4},   {0x1FF6, 0x1FFC},
    {0x2071, 0x2071},   {0x207F, 0x207F},   {0x2090, 0x209C},   {0x2102, 0x2102},
    {0x2107, 0x2107},   {0x210A, 0x2113},   {0x2115, 0x2115},   {0x2119, 0x211D},
    {0x2124, 0x2124},   {0x2126, 0x2126},   {0x2128, 0x2128},   {0x212A, 0x212D},
    {0x212F, 0x2139},   {0x213C, 0x213F},   {0x2145, 0x2149},   {0x214E, 0x214E},
    {0x2160, 0x2188},   {0x24B6, 0x24E9},   {0x25CC, 0x25CC},   {0x2C00, 0x2C2E},
    {0x2C30, 0x2C5E},   {0x2C60, 0x2CE4},   {0x2CEB, 0x2CEE},   {0x2CF2, 0x2CF3},
    {0x2D00, 0x2D25},   {0x2D27, 0x2D27},   {0x2D2D, 0x2D2D},   {0x2D30, 0x2D67},
    {0x2D6F, 0x2D6F},   {0x2D80, 0x2D96},   {0x2DA0, 0x2DA6},   {0x2DA8, 0x2DAE},
    {0x2DB0, 0x2DB6},   {0x2DB8, 0x2DBE},   {0x2DC0, 0x2DC6},   {0x2DC8, 0x2DCE},
    {0x2DD0, 0x2DD6},   {0x2DD8, 0x2DDE},   {0x2DE0, 0x2DFF},   {0x2E2F, 0x2E2F},
    {0x3006, 0x3006},   {0x3031, 0x3035},   {0x303C, 0x303C},   {0x3041, 0x3096},
    {0x309D, 0x309F},   {0x30A1, 0x30FA},   {0x30FC, 0x30FF},   {0x3105, 0x312D},
    {0x3131, 0x318E},   {0x31A0, 0x31BA},   {0x31F0, 0x31FF},   {0xA000, 0xA48C},
    {0xA4D0, 0xA4FD},   {0xA500, 0xA60C},   {0xA610, 0xA61F},   {0xA62A, 0xA62B},
    {0xA640, 0xA66E},   {0xA674, 0xA67B},   {0xA67F, 0xA69D},   {0xA69F, 0xA6EF},
    {0xA717, 0xA71F},   {0xA722, 0xA788},   {0xA78B, 0xA78E},   {0xA790, 0xA7AD},
    {0xA7B0, 0xA7B1},   {0xA7F7, 0xA801},   {0xA803, 0xA805},   {0xA807, 0xA80A},
    {0xA80C, 0xA827},   {0xA840, 0xA873},   {0xA880, 0xA8C4},   {0xA8F2, 0xA8F7},
    {0xA8FB, 0xA8FB},   {0xA90A, 0xA92A},   {0xA930, 0xA953},   {0xA960, 0xA97C},
    {0xA980, 0xA9B2},   {0xA9B4, 0xA9BF},   {0xA9CF, 0xA9CF},   {0xA9E0, 0xA9E4},
    {0xA9E6, 0xA9EF},   {0xA9FA, 0xA9FE},   {0xAA00, 0xAA36},   {0xAA40, 0xAA4D},
    {0xAA60, 0xAA76},   {0xAA7A, 0xAA7A},   {0xAA7E, 0xAABE},   {0xAAC0, 0xAAC0},
    {0xAAC2, 0xAAC2},   {0xAADB, 0xAADD},   {0xAAE0, 0xAAEF},   {0xAAF2, 0xAAF6},
    {0xAB01, 0xAB06},   {0xAB09, 0xAB0E},   {0xAB11, 0xAB16},   {0xAB20, 0xAB26},
    {0xAB28, 0xAB2E},   {0xAB30, 0xAB5A},   {0xAB5C, 0xAB5F},   {0xAB64, 0xAB65},
    {0xABC0, 0xABEA},   {0xD7B0, 0xD7C6},   {0xD7CB, 0xD7FB},   {0xFB00, 0xFB06},
    {0xFB13, 0xFB17},   {0xFB1D, 0xFB28},   {0xFB2A, 0xFB36},   {0xFB38, 0xFB3C},
    {0xFB3E, 0xFB3E},   {0xFB40, 0xFB41},   {0xFB43, 0xFB44},   {0xFB46, 0xFBB1},
    {0xFBD3, 0xFD3D},   {0xFD50, 0xFD8F},   {0xFD92, 0xFDC7},   {0xFDF0, 0xFDFB},
    {0xFE70, 0xFE74},   {0xFE76, 0xFEFC},   {0xFF21, 0xFF3A},   {0xFF41, 0xFF5A},
    {0xFF66, 0xFFBE},   {0xFFC2, 0xFFC7},   {0xFFCA, 0xFFCF},   {0xFFD2, 0xFFD7},
    {0xFFDA, 0xFFDC},   {0x10A3F, 0x10A3F}, {0x11046, 0x11046}, {0x110B9, 0x110BA},
    {0x11133, 0x11133}, {0x11173, 0x11173}, {0x111C0, 0x111C0}, {0x111CA, 0x111CA},
    {0x11235, 0x11236}, {0x112E9, 0x112EA}, {0x1133C, 0x1133C}, {0x1134D, 0x1134D},
    {0x11442, 0x11442}, {0x11446, 0x11446}, {0x114C2, 0x114C3}, {0x115BF, 0x115C0},
    {0x1163F, 0x1163F}, {0x116B6, 0x116B7}, {0x11839, 0x1183A}, {0x119E0, 0x119E0},
    {0x11A34, 0x11A34}, {0x11C3F, 0x11C3F}, {0x11D42, 0x11D42}, {0x11D45, 0x11D45},
    {0x11D97, 0x11D97}, {0x1E94A, 0x1E94A},
};
const int KD_MOSES_N_ALPHA = 442;

const struct kd_char_range KD_MOSES_DIGIT[] = {
    {0x30, 0x39},     {0x660, 0x669},   {0x6F0, 0x6F9},   {0x7C0, 0x7C9},
    {0x966, 0x96F},   {0x9E6, 0x9EF},   {0xA66, 0xA6F},   {0xAE6, 0xAEF},
    {0xB66, 0xB6F},   {0xBE6, 0xBEF},   {0xC66, 0xC6F},   {0xCE6, 0xCEF},
    {0xD66, 0xD6F},   {0xDE6, 0xDEF},   {0xE50, 0xE59},   {0xED0, 0xED9},
    {0xF20, 0xF29},   {0x1040, 0x1049}, {0x1090, 0x1099}, {0x17E0, 0x17E9},
    {0x1810, 0x1819}, {0x1946, 0x194F}, {0x19D0, 0x19D9}, {0x1A80, 0x1A89},
    {0x1A90, 0x1A99}, {0x1B50, 0x1B59}, {0x1BB0, 0x1BB9}, {0x1C40, 0x1C49},
    {0x1C50, 0x1C59}, {0xA620, 0xA629}, {0xA8D0, 0xA8D9}, {0xA900, 0xA909},
    {0xA9D0, 0xA9D9}, {0xA9F0, 0xA9F9}, {0xAA50, 0xAA59}, {0xABF0, 0xABF9},
    {0xFF10, 0xFF19},
};
const int KD_MOSES_N_DIGIT = 37;

const struct kd_char_range KD_MOSES_NUMBER[] = {
    {0xA, 0xA},       {0x30, 0x39},     {0xB2, 0xB3},     {0xB9, 0xB9},
    {0xBC, 0xBE},     {0x660, 0x669},   {0x6F0, 0x6F9},   {0x7C0, 0x7C9},
    {0x966, 0x96F},   {0x9E6, 0x9EF},   {0x9F4, 0x9F9},   {0xA66, 0xA6F},
    {0xAE6, 0xAEF},   {0xB66, 0xB6F},   {0xB72, 0xB77},   {0xBE6, 0xBF2},
    {0xC66, 0xC6F},   {0xC78, 0xC7E},   {0xCE6, 0xCEF},   {0xD66, 0xD75},
    {0xDE6, 0xDEF},   {0xE50, 0xE59},   {0xED0, 0xED9},   {0xF20, 0xF33},
    {0x1040, 0x1049}, {0x1090, 0x1099}, {0x1369, 0x137C}, {0x16EE, 0x16F0},
    {0x17E0, 0x17E9}, {0x17F0, 0x17F9}, {0x1810, 0x1819}, {0x1946, 0x194F},
    {0x19D0, 0x19DA}, {0x1A80, 0x1A89}, {0x1A90, 0x1A99}, {0x1B50, 0x1B59},
    {0x1BB0, 0x1BB9}, {0x1C40, 0x1C49}, {0x1C50, 0x1C59}, {0x2070, 0x2070},
    {0x2074, 0x2079}, {0x2080, 0x2089}, {0x2150, 0x2182}, {0x2185, 0x2189},
    {0x2460, 0x249B}, {0x24EA, 0x24FF}, {0x2776, 0x2793}, {0x2CFD, 0x2CFD},
    {0x3192, 0x3195}, {0x3220, 0x3229}, {0x3248, 0x324F}, {0x3251, 0x325F},
    {0x3280, 0x3289}, {0x32B1, 0x32BF}, {0xA620, 0xA629}, {0xA6E6, 0xA6EF},
    {0xA830, 0xA835}, {0xA8D0, 0xA8D9}, {0xA900, 0xA909}, {0xA9D0, 0xA9D9},
    {0xA9F0, 0xA9F9}, {0xAA50, 0xAA59}, {0xABF0, 0xABF9}, {0xFF10, 0xFF19},
};
const int KD_MOSES_N_NUMBER = 64;

const struct kd_char_range KD_MOSES_CURRENCY[] = {
    {0xA, 0xA},       {0x24, 0x24},     {0xA2, 0xA5},     {0x58F, 0x58F},
    {0x60B, 0x60B},   {0x9F2, 0x9F3},   {0x9FB, 0x9FB},   {0xAF1, 0xAF1},
    {0xBF9, 0xBF9},   {0xE3F, 0xE3F},   {0x17DB, 0x17DB}, {0x20A0, 0x20BD},
    {0xA838, 0xA838}, {0xFDFC, 0xFDFC}, {0xFE69, 0xFE69}, {0xFF04, 0xFF04},
    {0xFFE0, 0xFFE1}, {0xFFE5, 0xFFE6},
};
const int KD_MOSES_N_CURRENCY = 18;

const struct kd_char_range KD_MOSES_LOWER[] = {
    {0xAA, 0xAA},     {0xBA, 0xBA},     {0x2B0, 0x2B8},   {0x2C0, 0x2C1},
    {0x2E0, 0x2E4},   {0x345, 0x345},   {0x37A, 0x37A},   {0x1D2C, 0x1D6A},
    {0x1D78, 0x1D78}, {0x1D9B, 0x1DBF}, {0x2071, 0x2071}, {0x207F, 0x207F},
    {0x2090, 0x209C}, {0x2170, 0x217F}, {0x24D0, 0x24E9}, {0x25CC, 0x25CC},
    {0x2C7C, 0x2C7D}, {0xA69C, 0xA69D}, {0xA770, 0xA770}, {0xA7F8, 0xA7F9},
    {0xAB5C, 0xAB5F},
};
const int KD_MOSES_N_LOWER = 21;

const struct kd_char_range KD_MOSES_NOT_LOWER[] = {
    {0x560, 0x560},     {0x588, 0x588},     {0x10D0, 0x10FA},   {0x10FD, 0x10FF},
    {0x2C5F, 0x2C5F},   {0xA7AF, 0xA7AF},   {0xA7B9, 0xA7B9},   {0xA7BB, 0xA7BB},
    {0xA7BD, 0xA7BD},   {0xA7BF, 0xA7BF},   {0xA7C1, 0xA7C1},   {0xA7C3, 0xA7C3},
    {0xA7C8, 0xA7C8},   {0xA7CA, 0xA7CA},   {0xA7D1, 0xA7D1},   {0xA7D3, 0xA7D3},
    {0xA7D5, 0xA7D5},   {0xA7D7, 0xA7D7},   {0xA7D9, 0xA7D9},   {0xA7F6, 0xA7F6},
    {0xAB66, 0xAB68},   {0x10597, 0x105A1}, {0x105A3, 0x105B1}, {0x105B3, 0x105B9},
    {0x105BB, 0x105BC}, {0x16E60, 0x16E7F}, {0x1DF00, 0x1DF09}, {0x1DF0B, 0x1DF1E},
    {0x1DF25, 0x1DF2A},
};
const int KD_MOSES_N_NOT_LOWER = 29;

const struct kd_moses_language KD_MOSES_LANGUAGES[] = {
    {"cs",
     "Bc BcA Ing Ing.arch MUDr MVDr MgA Mgr JUDr PhDr RNDr PharmDr ThLic ThDr Ph.D"
     " Th.D prof doc CSc DrSc PaedDr Dr PhMr DiS abt ad a.i aj angl anon apod atd "
     "atp aut bd biogr b.m b.p b.r cca cit cizojaz c.k col čes čín čj ed facs "
     "fasc fol fot franc h.c hist hl hrsg ibid il ind inv.č jap jhdt jv koed kol "
     "korej kl krit lat lit m.a maď mj mp násl např nepubl něm no nr n.s okr o"
     "dd odp obr opr orig phil pl pokrač pol port pozn př.kr př.n.l přel přep"
     "rac příl pseud pt red repr resp revid rkp roč roz rozš samost sect sest "
     "seš sign sl srv stol sv šk šk.ro špan tab t.č tis tj tř tzv univ uspoř"
     " vol vl.jm vs vyd vyobr zal zejm zkr zprac zvl n.p než abl absol adj adv ak"
     " akt alch amer anat anglosas arab arch archit arg astr astrol att bás belg "
     "bibl biol boh bot bulh círk csl č čas dat děj dep dět dial dór dopr do"
     "sl ekon epic etnonym eufem f fam fem fil film form fr fut fyz gen geogr geol"
     " geom germ gram hebr herald hovor hud hut chcsl chem ie imp impf indoevr inf"
     " instr interj ión iron it kanad katalán klas kniž komp konj konkr kř kuc"
     "h lék les lid liturg lok log m mat meteor metr mod ms mysl n náb námoř n"
     "eklas nesklon nom ob obch obyč ojed opt part pas pejor pers pf plpf práv p"
     "rep předl přivl r rcsl refl reg ř řec s samohl sg souhl spec srov stfr s"
     "třv stsl subj subst superl sz táz tech telev teol trans typogr var vedl ve"
     "rb voj vok vůb vulg výtv vztaž zahr zájm zast zeměd zř dl sport horn R"
     "SDr pomn ev slang nprap dop st tzn p br čp ml vč kr mld hod popř ap event"
     " rus slov rum švýc hor dol S.O.S"},
    {"de",
     "A B C D E F G H I J K L M N O P Q R S T U V W X Y Z a b c d e f g h i j k l "
     "m n o p q r s t u v w x y z II III IV VI VII VIII IX XI XII XIII XIV XV XVI "
     "XVII XVIII XIX XX ii iii iv vi vii viii ix xi xii xiii xiv xv xvi xvii xviii"
     " xix xx Adj Adm Adv Asst Bart Bldg Brig Bros Capt Cmdr Col Comdr Con Corp Cp"
     "l DR Dr Ens Gen Gov Hon Hosp Insp Lt MM MR MRS MS Maj Messrs Mlle Mme Mr Mrs"
     " Ms Msgr Op Ord Pfc Ph Prof Pvt Rep Reps Res Rev Rt Sen Sens Sfc Sgt Sr St S"
     "upt Surg Mio Mrd bzw vs usw d.h z.B u.a etc MwSt ggf d.J D.h m.E vgl I.F z.T"
     " sogen ff u.E g.U g.g.A c.-à-d Buchst u.s.w sog u.ä Std evtl Zt Chr u.U o."
     "ä Ltd b.A z.Zt spp sen SA k.o jun i.H.v dgl dergl Co zzt usf s.p.a Dkr bzgl"
     " BSE No Nos Art Nr pp ca Ca 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 "
     "20 21 22 23 24 25 26 27 28 29 30 31 32 33 34 35 36 37 38 39 40 41 42 43 44 4"
     "5 46 47 48 49 50 51 52 53 54 55 56 57 58 59 60 61 62 63 64 65 66 67 68 69 70"
     " 71 72 73 74 75 76 77 78 79 80 81 82 83 84 85 86 87 88 89 90 91 92 93 94 95 "
     "96 97 98 99"},
    {"en",
     "A B C D E F G H I J K L M N O P Q R S T U V W X Y Z Adj Adm Adv Asst Bart Bl"
     "dg Brig Bros Capt Cmdr Col Comdr Con Corp Cpl DR Dr Drs Ens Gen Gov Hon Hr H"
     "osp Insp Lt MM MR MRS MS Maj Messrs Mlle Mme Mr Mrs Ms Msgr Op Ord Pfc Ph Pr"
     "of Pvt Rep Reps Res Rev Rt Sen Sens Sfc Sgt Sr St Supt Surg v vs i.e rev e.g"
     " Rs No# Nos Art# Nr pp# Jan Feb Mar Apr Jun Jul Aug Sep Oct Nov Dec"},
    {"es",
     "A B C D E F G H I J K L M N O P Q R S T U V W X Y Z A.C Apdo Av Bco CC.AA Da"
     " Dep Dn Dr Dra EE.UU Excmo FF.CC Fil Gral J.C Let Lic N.B P.D P.V.P Prof Pts"
     " Rte S.A S.A.R S.E S.L S.R.C Sr Sra Srta Sta Sto T.V.E Tel Ud Uds V.B V.E Vd"
     " Vds a/c adj admón afmo apdo av c c.f c.g cap cm cta dcha doc ej entlo esq "
     "etc f.c gr grs izq kg km mg mm nÃºm núm p p.a p.ej ptas pÃ¡g pÃ¡gs pá"
     "g págs q.e.g.e q.e.s.m s s.s.s vid vol"},
    {"et",
     "A B C D E F G H I J K L M N O P Q R S T U V W X Y Z Å Ä Ö alik alil amir "
     "apul apul.prof arkkit ass assist dipl dipl.arkkit dipl.ekon dipl.ins dipl.ki"
     "elenk dipl.kirjeenv dipl.kosm dipl.urk dos erikoiseläinl erikoishammasl eri"
     "koisl erikoist ev.luutn evp fil ft hallinton hallintot hammaslääket jatk j"
     "ääk kansaned kapt kapt.luutn kenr kenr.luutn kenr.maj kers kirjeenv kom ko"
     "m.kapt komm konst korpr luutn maist maj Mr Mrs Ms M.Sc neuv nimim Ph.D prof "
     "puh.joht pääll res san siht suom sähköp säv toht toim toim.apul toim.jo"
     "ht toim.siht tuom ups vänr vääp ye.ups ylik ylil ylim ylimatr yliop yliop"
     "p ylip yliv e.g ent esim huom i.e ilm l mm myöh nk nyk par po t v"},
    {"fi",
     "A B C D E F G H I J K L M N O P Q R S T U V W X Y Z Å Ä Ö alik alil amir "
     "apul apul.prof arkkit ass assist dipl dipl.arkkit dipl.ekon dipl.ins dipl.ki"
     "elenk dipl.kirjeenv dipl.kosm dipl.urk dos erikoiseläinl erikoishammasl eri"
     "koisl erikoist ev.luutn evp fil ft hallinton hallintot hammaslääket jatk j"
     "ääk kansaned kapt kapt.luutn kenr kenr.luutn kenr.maj kers kirjeenv kom ko"
     "m.kapt komm konst korpr luutn maist maj Mr Mrs Ms M.Sc neuv nimim Ph.D prof "
     "puh.joht pääll res san siht suom sähköp säv toht toim toim.apul toim.jo"
     "ht toim.siht tuom ups vänr vääp ye.ups ylik ylil ylim ylimatr yliop yliop"
     "p ylip yliv e.g ent esim huom i.e ilm l mm myöh nk nyk par po t v"},
    {"fr",
     "A B C D E F G H I J K L M N O P Q R S T U V W X Y Z b c d e f g h i j k l m "
     "n o p q r s t u v w x y z A.C.N A.M art ann apr av auj lib B.P boul ca c.-à"
     "-d cf ch.-l chap contr C.P.I C.Q.F.D C.N C.N.S C.S dir éd e.g env al etc E."
     "V ex fasc fém fig fr hab ibid id i.e inf LL.AA LL.AA.II LL.AA.RR LL.AA.SS L"
     ".D LL.EE LL.MM LL.MM.II.RR loc.cit masc MM ms N.B N.D.A N.D.L.R N.D.T n/réf"
     " NN.SS N.S N.D N.P.A.I p.c.c pl pp p.ex p.j P.S R.A.S R.-V R.P R.I.P SS S.S "
     "S.A S.A.I S.A.R S.A.S S.E sec sect sing S.M S.M.I.R sq sqq suiv sup suppl té"
     "l T.S.V.P vb vol vs X.O Z.I"},
    {"hu", "A B C D E F G H I J K L M N O P Q R S T U V W X Y Z Á É Í Ó Ö Ő Ú Ü "
           "Ű Dr dr kb Kb vö Vö pl Pl ca Ca min Min max Max ún Ún prof Prof de De d"
           "u Du Szt St jan# Jan# Feb# feb# márc# Márc# ápr# Ápr# máj# Máj# jún# "
           "Jún# Júl# júl# aug# Aug# Szept# szept# okt# Okt# nov# Nov# dec# Dec# tel#"
           " Tel# Fax# fax#"},
    {"it",
     "A B C D E F G H I J K L M N O P Q R S T U V W X Y Z Adj Adm Adv Amn Arch Ass"
     "t Avv Bart Bcc Bldg Brig Bros C.A.P C.P Capt Cc Cmdr Co Col Comdr Con Corp C"
     "pl DR Dott Dr Drs Egr Ens Gen Geom Gov Hon Hosp Hr Id Ing Insp Lt MM MR MRS "
     "MS Maj Messrs Mlle Mme Mo Mons Mr Mrs Ms Msgr N.B Op Ord P.S P.T Pfc Ph Prof"
     " Pvt RP RSVP Rag Rep Reps Res Rev Rif Rt S.A S.B.F S.P.M S.p.A S.r.l Sen Sen"
     "s Sfc Sgt Sig Sigg Soc Spett Sr St Supt Surg V.P a.c acc all banc c.a c.c.p "
     "c.m c.p c.s c.v corr dott e.p.c ecc es fatt gg int lett ogg on p.c p.c.c p.e"
     "s p.f p.r p.v post pp racc ric s.n.c seg sgg ss tel u.s v.r v.s v vs i.e rev"
     " e.g No# Nos Art# Nr pp#"},
    {"lv", "A Ā B C Č D E Ē F G Ģ H I Ī J K Ķ L Ļ M N Ņ O P Q R S Š T U Ū V W "
           "X Y Z Ž dr Dr med prof Prof inž Inž ist.loc Ist.loc kor.loc Kor.loc v.i v"
           "ietn Vietn a.l t.p pārb Pārb vec Vec inv Inv sk Sk spec Spec vienk Vienk v"
           "irz Virz māksl Māksl mūz Mūz akad Akad soc Soc galv Galv vad Vad sertif "
           "Sertif folkl Folkl hum Hum Nr#"},
    {"nl",
     "A B C D E F G H I J K L M N O P Q R S T U V W X Y Z bacc bc bgen c.i dhr dr "
     "dr.h.c drs ds eint fa Fa fam gen genm ing ir jhr jkvr jr kand kol lgen lkol "
     "Lt maj Mej mevr Mme mr Mw o.b.s plv prof ritm tint Vz Z.D Z.D.H Z.E Z.Em Z.H"
     " Z.K.H Z.K.M Z.M z.v a.g.v bijv bijz bv d.w.z e.c e.g e.k ev i.p.v i.s.m i.t"
     ".t i.v.m m.a.w m.b.t m.b.v m.h.o m.i m.i.v v.w.t Nr# Nrs nrs nr#"},
    {"pl",
     "adw afr akad al Al am amer arch art Art artyst astr austr bałt bdb bł bm b"
     "r bryg bryt centr ces chem chiń chir c.k c.o cyg cyw cyt czes czw cd Cd czy"
     "t ćw ćwicz daw dcn dekl demokr det diec dł dn dot dol dop dost dosł h.c "
     "ds dst duszp dypl egz ekol ekon elektr em ew fab farm fot fr gat gastr geogr"
     " geol gimn głęb gm godz górn gosp gr gram hist hiszp hr Hr hot id in im i"
     "ron jn kard kat katol k.k kk kol kl k.p.a kpc k.p.c kpt kr k.r krak k.r.o kr"
     "yt kult laic łac niem woj nb np Nb Np pol pow m.in pt ps Pt Ps cdn jw ryc r"
     "ys Ryc Rys tj tzw Tzw tzn zob ang ub ul pw pn pl k n nr# Nr# ww wł ur zm ż"
     "yd żarg żyw wył bp wyst tow Tow o sp Sp st spółdz Spółdz społ spół"
     "gł stoł stow Stoł Stow zn zew zewn zdr zazw zast zaw zał zal zam zak zak"
     "ł zagr zach Adw lek Lek med mec Mec doc Doc dyw dyr Dyw Dyr inż Inż mgr M"
     "gr dh dr Dh Dr p P red Red prof prok Prof Prok hab płk Płk nadkom Nadkom p"
     "odkom Podkom ks Ks gen Gen por Por reż Reż przyp Przyp śp św śW Śp Św"
     " ŚW szer Szer pkt# str# tab# Tab# tel ust# par# poz pok oo oO Oo OO r# l# s"
     "# najśw Najśw A B C D E F G H I J K L M N O Q R S T U V W X Y Z Ś Ć Ż Ź"
     " Dz"},
    {"pt",
     "A B C D E F G H I J K L M N O P Q R S T U V W X Y Z a b c d e f g h i j k l "
     "m n o p q r s t u v w x y z II III IV VI VII VIII IX XI XII XIII XIV XV XVI "
     "XVII XVIII XIX XX ii iii iv vi vii viii ix xi xii xiii xiv xv xvi xvii xviii"
     " xix xx Adj Adm Adv Art Ca Capt Cmdr Col Comdr Con Corp Cpl DR DRA Dr Dra Dr"
     "as Drs Eng Enga Engas Engos Ex Exo Exmo Fig Gen Hosp Insp Lda MM MR MRS MS M"
     "aj Mrs Ms Msgr Op Ord Pfc Ph Prof Pvt Rep Reps Res Rev Rt Sen Sens Sfc Sgt S"
     "r Sra Sras Srs Sto Supt Surg adj adm adv art cit col con corp cpl dr dra dra"
     "s drs eng enga engas engos ex exo exmo fig op prof sr sra sras srs sto vs i."
     "e rev e.g No# Nos Art# Nr p# pp#"},
    {"ro", "A B C D E F G H I J K L M N O P Q R S T U V W X Y Z dpdv etc șamd M.Ap.N dl"
           " Dl d-na D-na dvs Dvs pt Pt"},
    {"ru", "А Б В Г Д Е Ж З И Й К Л М Н О П Р С Т У Ф Х Ц Ч Ш Щ"
           " Ъ Ы Ь Э Ю Я A B C D E F G H I J K L M N O P Q R S T U V W X Y Z 0гг"
           " 1гг 2гг 3гг 4гг 5гг 6гг 7гг 8гг 9гг 0г 1г 2г 3г 4г 5"
           "г 6г 7г 8г 9г Xвв Vвв Iвв Lвв Mвв Cвв Xв Vв Iв Lв Mв C"
           "в 0м 1м 2м 3м 4м 5м 6м 7м 8м 9м 0мм 1мм 2мм 3мм 4мм 5м"
           "м 6мм 7мм 8мм 9мм 0см 1см 2см 3см 4см 5см 6см 7см 8"
           "см 9см 0дм 1дм 2дм 3дм 4дм 5дм 6дм 7дм 8дм 9дм 0л 1"
           "л 2л 3л 4л 5л 6л 7л 8л 9л 0км 1км 2км 3км 4км 5км 6км"
           " 7км 8км 9км 0га 1га 2га 3га 4га 5га 6га 7га 8га 9г"
           "а 0кг 1кг 2кг 3кг 4кг 5кг 6кг 7кг 8кг 9кг 0т 1т 2т 3"
           "т 4т 5т 6т 7т 8т 9т 0мг 1мг 2мг 3мг 4мг 5мг 6мг 7мг 8"
           "мг 9мг бульв в вв г га гг гл гос д дм доп др е"
           " ед зам и инд исп Исп к кап кг кв кл км кол к"
           "омн коп куб л лиц лл м макс мг мин мл млн мл"
           "рд мм н наб нач неуд ном о обл обр общ ок ос"
           "т отл п пер перераб пл пос пр просп проф р р"
           "ед руб с сб св см соч ср ст стр т тел Тел тех"
           " тт туп тыс уд ул уч физ х хор ч чел шт экз э"},
    {"sk",
     "Bc Mgr RNDr PharmDr PhDr JUDr PaedDr ThDr Ing MUDr MDDr MVDr Dr ThLic PhD Ar"
     "tD DrSc CSs prof obr Obr Č č absol adj admin adr Adr adv advok afr ak akad"
     " akc akuz et al alch amer anat angl Angl anglosas anorg ap apod arch archeol"
     " archit arg art astr astrol astron atp atď austr Austr aut belg Belg bibl B"
     "ibl biol bot bud bás býv cest chem cirk csl čs Čs dat dep det dial diaľ"
     " dipl distrib dokl dosl dopr dram duš dv dvojčl dór ekol ekon el elektr e"
     "lektrotech energet epic est etc etonym eufem európ Európ ev evid expr fa f"
     "am farm fem feud fil filat filoz fi fon form fot fr Fr franc Franc fraz fut "
     "fyz fyziol garb gen genet genpor geod geogr geol geom germ gr Gr gréc Gréc"
     " gréckokat hebr herald hist hlav hosp hromad hud hypok ident i.e imp impf i"
     "ndoeur inf inform instr int interj inšt inštr iron jap Jap jaz jedn juhoam"
     "er juhových juhozáp juž kanad Kanad kanc kapit kpt kart katastr knih kniž"
     " komp konj konkr kozmet krajč kresť kt kuch lat latinskoamer lek lex lingv"
     " lit litur log lok max Max maď Maď medzinár mest metr mil Mil min Min min"
     "er ml mld mn mod mytol napr nar Nar nasl nedok neg negat neklas nem Nem neod"
     "b neos neskl nesklon nespis nespráv neved než niekt niž nom náb nákl ná"
     "mor nár obch obj obv obyč obč občian odb odd ods ojed okr Okr opt opyt o"
     "rg os osob ot ovoc par part pejor pers pf Pf P.f p.f pl Plk pod podst pokl p"
     "olit politol polygr pomn popl por porad porov posch potrav použ poz pozit p"
     "oľ poľno poľnohosp poľov pošt pož prac predl pren prep preuk priezv Pr"
     "iezv privl práv príd príj prík príp prír prísl príslov príč psych "
     "publ pís písm pôv refl reg rep resp rozk rozlič rozpráv roč Roč ryb r"
     "ádiotech rím samohl semest sev severoamer severových severozáp sg skr sk"
     "up sl Sloven soc soch sociol sp spol Spol spoloč spoluhl správ spôs st st"
     "ar starogréc starorím s.r.o stol stor str stredoamer stredoškol subj subs"
     "t superl sv sz súkr súp súvzť tal Tal tech tel Tel telef teles telev teo"
     "l trans turist tuzem typogr tzn tzv ukaz ul Ul umel univ ust ved vedľ verb "
     "veter vin viď vl vod vodohosp pnl vulg vyj vys vysokoškol vzťaž vôb vý"
     "ch výd výrob výsk výsl výtv výtvar význ včel vš všeob zahr zar zar"
     "iad zast zastar zastaráv zb zdravot združ zjemn zlat zn Zn zool zr zried z"
     "v záhr zák zákl zám záp západoeur zázn územ účt čast čes Čes č"
     "l čísl živ pr fak Kr p.n.l A B C D E F G H I J K L M N O P Q R S T U V W "
     "X Y Z"},
    {"sl",
     "dr Dr itd itn št# Št# d jan Jan feb Feb mar Mar apr Apr jun Jun jul Jul av"
     "g Avg sept Sept sep Sep okt Okt nov Nov dec Dec tj Tj npr Npr sl Sl op Op gl"
     " Gl oz Oz prev dipl ing prim Prim cf Cf A B C D E F G H I J K L M N O P Q R "
     "S T U V W X Y Z"},
    {"sv",
     "A B C D E F G H I J K L M N O P Q R S T U V W X Y Z Å Ä Ö AB VG dvs d.v.s"
     " etc from fr.o.m iaf i.a.f jfr kl kr mao m.a.o mfl m.fl mm m.m osv o.s.v pga"
     " p.g.a tex t.ex tom t.o.m vs adv jur kand mag fil lic prop d f s mha m.h.a v"
     "ol jan feb mar apr jun jul aug sep okt nov dec"},
};

const int KD_MOSES_N_LANGUAGES = 18;

const char *const KD_MOSES_OTHERS[] = {
    "as", "bn", "ca", "el", "ga",  "gu", "hi",  "is", "kn", "lt", "ml",  "mni",
    "mr", "or", "pa", "ta", "tdt", "te", "yue", "zh", "ja", "ko", "cjk", NULL};
