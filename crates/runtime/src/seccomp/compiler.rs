//! Profiles compiled once: containers that ask for the same in the same surroundings share a program.
//!
//! Understanding Docker's default profile and turning it into a program takes longer than making a network namespace.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use oci::runtime::Seccomp;
use stdx::Result;

use super::profile::{Profile, Surroundings};
use super::{Program, compile};

/// How many different ones are remembered: the default with a few sets of capabilities, and a few of the users'.
const REMEMBERED: usize = 16;

/// What a profile comes to in its surroundings.
#[derive(Debug)]
pub struct Compiled {
    /// For runtimes that compile it themselves.
    pub profile: Seccomp,
    pub program: Program,
}

/// Compiles profiles, and remembers the last.
#[derive(Debug, Default)]
pub struct Compiler(Mutex<VecDeque<(Question, Arc<Compiled>)>>);

/// What a program depends on; the running kernel stays the same.
#[derive(Debug, PartialEq, Eq)]
struct Question {
    profile: Option<String>,
    capabilities: Vec<String>,
}

impl Compiler {
    /// The program of a profile's text, or of Docker's default one, for a container with this bounding set.
    pub fn compile(
        &self,
        profile: Option<&str>,
        capabilities: impl IntoIterator<Item = String>,
    ) -> Result<Arc<Compiled>> {
        let question = Question {
            profile: profile.map(str::to_owned),
            capabilities: capabilities.into_iter().collect(),
        };
        let known = |all: &VecDeque<(Question, Arc<Compiled>)>| {
            all.iter().find(|(asked, _)| *asked == question).map(|(_, done)| Arc::clone(done))
        };
        let lock = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(done) = known(&lock()) {
            return Ok(done);
        }
        let profile = match profile {
            Some(text) => Profile::parse(text)?,
            None => Profile::default_profile(),
        };
        let profile = profile.resolve(Surroundings::here(&question.capabilities));
        let done = Arc::new(Compiled { program: compile(&profile)?, profile });
        let mut all = lock();
        if known(&all).is_none() {
            all.truncate(REMEMBERED - 1);
            all.push_front((question, Arc::clone(&done)));
        }
        Ok(done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn the_same_question_is_answered_once() {
        let compiler = Compiler::default();
        let ask = |capabilities: &str| compiler.compile(None, names(capabilities)).unwrap();
        let (first, other) = (ask("CAP_CHOWN"), ask("CAP_CHOWN CAP_SYS_ADMIN"));
        assert!(Arc::ptr_eq(&first, &ask("CAP_CHOWN")));
        assert_ne!(first.program, other.program);
        assert_eq!(first.program, compile(&first.profile).unwrap());
        let text = r#"{"defaultAction": "SCMP_ACT_ALLOW"}"#;
        let own = compiler.compile(Some(text), names("CAP_CHOWN")).unwrap();
        assert_ne!(own.program, first.program);
        assert!(compiler.compile(Some("{"), names("")).is_err());
    }

    #[test]
    fn only_the_last_are_remembered() {
        let compiler = Compiler::default();
        for number in 0..REMEMBERED * 2 {
            compiler.compile(None, names(&format!("CAP_{number}"))).unwrap();
        }
        assert_eq!(compiler.0.lock().unwrap().len(), REMEMBERED);
    }

    #[test]
    fn a_program_travels() {
        let program =
            Compiler::default().compile(None, names("CAP_CHOWN")).unwrap().program.clone();
        let text = serde_json::to_string(&program).unwrap();
        assert_eq!(serde_json::from_str::<Program>(&text).unwrap(), program);
    }
}
