# Dependencies: licences, bans, sources; advisories where their database can be fetched.
deny() {
    cargo deny --locked check licenses bans sources || return 1
    if cargo deny --locked check advisories; then
        return 0
    fi
    if cargo deny --locked fetch db; then
        return 1
    fi
    echo "advisories not checked: the advisory database cannot be fetched from here"
}
part deny deny
