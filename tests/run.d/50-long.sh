# Short forms of the long suites; `tests/long/NAME.sh` without --short is the long form.
for suite in tests/long/*.sh; do
    [ -e "$suite" ] || continue
    part "$(basename "$suite" .sh)" bash "$suite" --short
done
