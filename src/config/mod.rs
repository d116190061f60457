//! Text in, typed and checked configuration out.
