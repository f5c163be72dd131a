# SPDX-License-Identifier: GPL-3.0-or-later
"""A disposable virtual machine for what containers cannot show: a kernel of its own and SELinux.

One base per definition is built, booted once, and kept as a disk with the memory that goes with
it. Every machine resumes from there in seconds, on a throw-away layer over that disk.
"""
