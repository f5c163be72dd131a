# SPDX-License-Identifier: GPL-3.0-or-later
"""Two identities of one CA, for the handshake: ``identities.py DIRECTORY``, once."""

import sys
from pathlib import Path

import trustme

folder = Path(sys.argv[1])
if not folder.exists():
    authority = trustme.CA()
    for name in ("own", "wrong"):
        made = folder / name
        made.mkdir(parents=True)
        certificate = authority.issue_cert(f"{name}.example")
        authority.cert_pem.write_to_path(made / "ca.pem")
        certificate.private_key_pem.write_to_path(made / "key.pem")
        (made / "chain.pem").write_bytes(certificate.cert_chain_pems[0].bytes())
    print("made")
