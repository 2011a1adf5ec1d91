//! In turn: one round of each contestant after the other, so that a busy minute falls on all of them.

use anyhow::Result;

use crate::interrupt::Stop;

#[derive(Clone, Debug)]
pub(crate) struct Turns {
    pub(crate) rounds: usize,
    pub(crate) stop: Stop,
}

/// One round: the values of the rows it fills.
pub(crate) type Round<'a> = Box<dyn FnMut() -> Result<Vec<f64>> + 'a>;

/// The values of one row.
pub(crate) type Values = Vec<f64>;

impl Turns {
    /// For work of seconds.
    pub(crate) fn fewer(&self) -> Self {
        self.part(10)
    }

    pub(crate) fn part(&self, of: usize) -> Self {
        Self { rounds: self.rounds.div_ceil(of), stop: self.stop.clone() }
    }

    /// By contestant, then by row. The first round of each warms up and is not counted.
    pub(crate) fn take(&self, contestants: &mut [Round]) -> Result<Vec<Vec<Values>>> {
        let mut all: Vec<Vec<Values>> = vec![Vec::new(); contestants.len()];
        for round in 0..=self.rounds {
            for step in 0..contestants.len() {
                self.stop.check()?;
                // Nobody is always the one who comes after.
                let at = (round + step) % contestants.len();
                let values = contestants[at]()?;
                if round == 0 {
                    all[at] = vec![Vec::new(); values.len()];
                    continue;
                }
                for (row, value) in all[at].iter_mut().zip(values) {
                    row.push(value);
                }
            }
        }
        Ok(all)
    }
}

/// How long something took, in milliseconds.
pub(crate) fn clock<T>(act: impl FnOnce() -> Result<T>) -> Result<(f64, T)> {
    let start = std::time::Instant::now();
    let value = act()?;
    Ok((start.elapsed().as_secs_f64() * 1000.0, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_round_does_not_count() {
        let turns = Turns { rounds: 2, stop: Stop::default() };
        let mut count = 0.0;
        let mut contestants: Vec<Round> = vec![
            Box::new(|| {
                count += 1.0;
                Ok(vec![count, -count])
            }),
            Box::new(|| Ok(vec![7.0])),
        ];
        let all = turns.take(&mut contestants).unwrap();
        assert_eq!(all, [vec![vec![2.0, 3.0], vec![-2.0, -3.0]], vec![vec![7.0, 7.0]]]);
    }
}
