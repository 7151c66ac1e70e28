/* SPDX-License-Identifier: Apache-2.0 */
/* The program is mode/program.c; this file exists so that everything else is a library.
 */
#include "kdhpc/mode/mode.h"

int main(int argc, char **argv)
{
    return kd_program(argc, argv);
}
