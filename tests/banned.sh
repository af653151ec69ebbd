#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Refuses functions that are not used here, because they have no bound, report no error, or have hidden
# state.
! grep -nE '(^|[^a-zA-Z_])(strcpy|strcat|sprintf|vsprintf|gets|atoi|atol|atof|strtok|rand|srand) *\(' "$@"
