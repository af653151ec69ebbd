# SPDX-License-Identifier: Apache-2.0
# Fails where a line is longer than 110 characters (UTF-8; a tab counts as one).  LC_ALL=C awk -f columns.awk FILES
{
    line = $0
    gsub(/[\200-\277]/, "", line)
    if (length(line) > 110) { print FILENAME ":" FNR ": " length(line) " columns, at most 110"; bad = 1 }
}
END { exit bad }
