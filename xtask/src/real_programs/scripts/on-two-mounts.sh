# MOUNT OTHER COMMAND...: runs the command as one rank of an MPI program; odd ranks find OTHER where MOUNT is.
export MOUNT="$1" OTHER="$2"
shift 2
case "$OMPI_COMM_WORLD_RANK" in
*[13579]) exec unshare --mount --propagation private sh -ec 'mount --bind "$OTHER" "$MOUNT"; exec "$@"' sh "$@" ;;
*) exec "$@" ;;
esac
