# SPDX-License-Identifier: Apache-2.0
# Include edges: a layer includes itself and the layers below it, and each outside library belongs to one layer.
set -euo pipefail
cd "${KD_SOURCE_DIR:?}"
bad=0

complain() {
    echo "$*"
    bad=1
}

includes() { # DIR...: "file:included" of every include
    find "$@" -type f \( -name '*.[ch]' -o -name '*.cc' -o -name '*.cu' \) -print0 |
        xargs -0 -r grep -HoE '^[[:space:]]*#[[:space:]]*include[[:space:]]*[<"][^>"]+' |
        sed -E 's/:[^<"]*[<"]/:/'
}

below() { # LAYER: what it may include
    case $1 in
    base) echo base ;;
    tensor) echo base tensor ;;
    backend) echo base tensor ;;
    autograd) echo base tensor autograd ;;
    model) echo base tensor autograd model ;;
    text) echo base text ;;
    report) echo base report ;;
    metric) echo base metric ;;
    decode) echo base tensor autograd model decode ;;
    distill) echo base tensor autograd model distill ;;
    comm) echo base tensor comm ;;
    store) echo base tensor comm store ;;
    train) echo base tensor autograd model comm train ;;
    mode) echo base tensor autograd model text report metric decode distill comm store train mode ;;
    *) complain "layer $1 is not known to this test" ;;
    esac
}

for dir in src/*/ include/kdhpc/*/; do
    layer=$(basename "$dir")
    [ "$layer" != cmake ] || continue
    allowed=" $(below "$layer") "
    while IFS=: read -r file included; do
        case $included in kdhpc/*) ;; *) continue ;; esac
        target=${included#kdhpc/}
        target=${target%%/*}
        case $allowed in
        *" $target "*) ;;
        *) complain "$file includes $included: $layer may not include $target" ;;
        esac
    done < <(includes "$dir")
done

only() { # PATTERN PATHS: files that include PATTERN lie in one of PATHS (a regular expression)
    while IFS=: read -r file included; do
        [[ $included =~ ^($1)$ ]] || continue
        [[ $file =~ ^($2) ]] || complain "$file includes $included, which only $2 may"
    done < <(includes src include)
}
only 'mpi\.h' '(src|include/kdhpc)/comm/'
only 'kdhpc/comm/comm_mpi\.h' '(src/comm|src/store)/'
only 'nccl\.h' 'src/comm/nccl_api\.h'
only 'hdf5.*\.h|H5.*\.h' 'src/store/'
only 'cblas.*\.h|openblas.*' 'src/backend/cpu/'
only 'cuda.*|cublas.*|curand.*' '(src/backend/cuda/|src/comm/nccl\.c)'
only 'jansson\.h|yaml\.h' 'src/base/'
only 'sentencepiece.*|pcre2\.h' 'src/text/'
exit $bad
