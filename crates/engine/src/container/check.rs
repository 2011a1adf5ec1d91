//! Is what is recorded of this container true?

use stdx::Result;

use super::Container;
use crate::Finding;

impl Container {
    /// I1: whoever is recorded as up has a living first process and a shim that answers.
    pub(crate) async fn check(&self) -> Result<Vec<Finding>> {
        let record = self.record();
        let mut findings = Vec::new();
        let mut found = |id: &str, problem: String| {
            let object = format!("container {}", record.id);
            findings.push(Finding { id: id.to_owned(), object, problem, repaired: false });
        };
        if record.state.phase.is_up() {
            match self.with_shim(shim::Client::state).await {
                Ok(state) if state.pid != record.state.pid => {
                    found(
                        "I1",
                        format!("the record says pid {}, the shim {}", record.state.pid, state.pid),
                    );
                }
                Ok(_) => {}
                // It may have ended between the two looks.
                Err(_) if !self.record().state.phase.is_up() => {}
                Err(error) => found(
                    "I1",
                    format!(
                        "it is recorded as up, and its shim does not answer: {}",
                        error.chain()
                    ),
                ),
            }
        } else if self.rooms.exec_dir(&record.id).exists() && !self.record().state.phase.is_up() {
            found("I1", "it is not up and still has a run directory".to_owned());
        }
        if self.rooms.images.get(&record.image).is_none() {
            found("I10", format!("its image {} is gone", record.image));
        }
        Ok(findings)
    }
}
