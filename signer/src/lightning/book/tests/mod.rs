//! The book alone, against an honest model of channels and what an attacker makes of it.

mod dust;
mod model;
mod random;
mod rules;
