//! Real containers under real shims. Needs root; skipped aloud without.

mod attach;
mod end;
mod exec;
mod house;
mod life;
mod logs;
mod output;
mod terminal;
