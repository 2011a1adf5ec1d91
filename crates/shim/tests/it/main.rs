//! Real containers under real shims. Needs root; skipped aloud without.

#[cfg(test)]
mod attach;
#[cfg(test)]
mod end;
#[cfg(test)]
mod exec;
#[cfg(test)]
mod house;
#[cfg(test)]
mod life;
#[cfg(test)]
mod logs;
#[cfg(test)]
mod output;
#[cfg(test)]
mod terminal;
