//! The book alone, against an honest model of channels and what an attacker makes of it.

mod arithmetic;
mod batch;
mod closing;
mod dust;
mod forward;
mod model;
mod parts;
mod random;
mod rules;
mod time;
