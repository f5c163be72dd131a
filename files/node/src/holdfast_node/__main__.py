# SPDX-License-Identifier: Apache-2.0
"""`python -m holdfast_node`: the same as the command `holdfast-node`."""

from holdfast_node.cli import main

if __name__ == "__main__":
    main()
