"""Which certificates are trusted, and what to do when one is not."""

from __future__ import annotations

import os
import ssl
import warnings
from pathlib import Path

from comfynb.errors import BackendError

# OpenSSL's x509_vfy.h, X509_V_ERR_*
_SELF_SIGNED = frozenset({18, 19})
_UNKNOWN_ISSUER = frozenset({2, 20, 21})
_NOT_YET, _EXPIRED = 9, 10
_OTHER_NAME = frozenset({62, 64})


def trusted(host: str, ca: str | os.PathLike[str] | None, *, verify: bool) -> str:
    """Look at what a user gave before anything is sent; return the absolute path of `ca`, or "".

    Raises:
        BackendError: There are no certificates there.
    """
    path = str(Path(ca).expanduser().absolute()) if ca else ""
    if not verify:
        # Not at the caller's line, which would be quoted and may hold a token.
        warnings.warn(
            f"the certificate of {host} is not checked (verify=False): whoever sits between this "
            "machine and it can read and change everything, tokens too; better save its "
            "certificate and give ca='that.pem'",
            stacklevel=1,
        )
    elif path:
        context(path)
    return path


def context(ca: str = "", *, verify: bool = True) -> ssl.SSLContext:
    """Return how certificates are checked, for HTTP and WebSocket alike.

    Args:
        ca: A PEM file, or a folder of such as OpenSSL wants it, trusted instead of all else; "":
            the environment's SSL_CERT_FILE and SSL_CERT_DIR, else httpx's and this machine's.
        verify: False: any will do.

    Raises:
        BackendError: `ca` cannot be read.
    """
    import httpx  # noqa: PLC0415 - takes 0.1 s, and addresses are read before anything is sent

    if not verify:
        return httpx.create_ssl_context(verify=False)
    if not ca:
        made = httpx.create_ssl_context()
        if not os.environ.get("SSL_CERT_FILE") and not os.environ.get("SSL_CERT_DIR"):
            made.load_default_certs()  # a company's own stand in the system's store alone
        return made
    try:
        if Path(ca).is_dir():
            return ssl.create_default_context(capath=ca)
        return ssl.create_default_context(cafile=ca)
    except (OSError, ValueError) as exc:
        reason = "there is no such file" if isinstance(exc, FileNotFoundError) else str(exc)
    raise BackendError(
        f"the certificates at {ca} cannot be read: {reason}; give a file in PEM format as ca=..."
    )


def explain(exc: BaseException) -> str | None:
    """Say what is wrong with a certificate and what helps; None: another fault.

    Args:
        exc: What a library raised; its causes are looked at, too.
    """
    found: BaseException | None = exc
    while found is not None and not isinstance(found, ssl.SSLError):
        found = found.__cause__ or found.__context__
    if not isinstance(found, ssl.SSLCertVerificationError):
        if found is not None and found.reason == "WRONG_VERSION_NUMBER":
            return "it does not speak TLS there; try the address with http:// instead of https://"
        return None
    code = found.verify_code
    if code in _SELF_SIGNED or code in _UNKNOWN_ISSUER:
        kind = "signed by itself" if code == 18 else "signed by nobody this machine trusts"
        return (
            f"its certificate is {kind}; if it is yours, save it (or the one that signed it) as "
            "a PEM file and give connect(..., ca='that.pem')"
        )
    if code == _EXPIRED:
        return "its certificate has expired; renew it on the server"
    if code == _NOT_YET:
        return "its certificate is not valid yet; look at the clocks of both machines"
    if code in _OTHER_NAME:
        return f"{found.verify_message}; use the name its certificate is for in the address"
    return f"its certificate is not accepted: {found.verify_message}"
