"""Why there is no TLS connection to a node, in words for people.

Pure. Standard library's texts of these errors are made for those who wrote OpenSSL.
"""

import ssl


def tls_failure(error: Exception) -> ConnectionError | TimeoutError:
    """The same as an error of a connection."""
    if isinstance(error, TimeoutError):
        return TimeoutError("timed out in the TLS handshake")
    return ConnectionError(f"no TLS: {_why(error)}")


def _why(error: Exception) -> str:
    match error:
        case ssl.SSLCertVerificationError():
            return f"its certificate is refused: {error.verify_message} (JOBYARD_TLS_CA says whom to trust)"
        case ssl.SSLEOFError() | ssl.SSLZeroReturnError() | ssl.SSLSyscallError():
            return "the node closed the connection"
        case ssl.SSLError(reason="WRONG_VERSION_NUMBER" | "RECORD_LAYER_FAILURE"):
            return "the node does not speak it; tcp:// addresses it without"
        case ssl.SSLError(reason=str(reason)):
            return reason.replace("_", " ").lower()
        case _:
            return str(error)
