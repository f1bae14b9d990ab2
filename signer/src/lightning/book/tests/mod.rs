//! The book alone, against an honest model of channels and what an attacker makes of it.

mod arithmetic;
mod batch;
mod channel;
mod closing;
mod dust;
mod ended;
mod forward;
mod model;
mod parts;
mod random;
mod removal;
mod rules;
mod time;
