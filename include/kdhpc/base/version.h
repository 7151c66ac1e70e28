/* SPDX-License-Identifier: Apache-2.0 */
/* The version of this program, as outputs record it; the build defines it. */
#ifndef KDHPC_BASE_VERSION_H
#define KDHPC_BASE_VERSION_H

#ifndef KDHPC_VERSION
#define KDHPC_VERSION "(unversioned build)"
#endif

#endif
