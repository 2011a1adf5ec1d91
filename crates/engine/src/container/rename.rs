//! `docker rename`.

use stdx::{Context, Error, Result};

use super::Container;
use super::record::Record;
use crate::names;

impl Container {
    /// Gives the container another name; the old one is free at once.
    pub async fn rename(&self, name: &str) -> Result<()> {
        let allocating = || "Error when allocating new name".to_owned();
        let name = match name {
            "" => return Err(Error::invalid("Neither old nor new names may be empty")),
            // What is wrong with it is said of the name with its slash.
            name => names::parse(&format!("/{}", name.strip_prefix('/').unwrap_or(name)))
                .context(allocating)?
                .to_owned(),
        };
        let this = self.clone();
        tokiox::to_the_end(async move {
            let _gate = this.cell.gate.lock().await;
            let record = this.record();
            if record.name == name {
                return Err(Error::invalid(
                    "Renaming a container with the same name as its current name",
                ));
            }
            this.rooms.registry.reserve(&name, &record.id).context(allocating)?;
            let old = record.name.clone();
            let mut renamed = Record { name: name.clone(), ..Record::clone(&record) };
            let known = renamed.endpoints.values_mut().filter_map(|one| one.dns_names.as_mut());
            for own in known.flatten().filter(|own| **own == old) {
                own.clone_from(&name);
            }
            if let Err(error) = this.save(renamed) {
                this.rooms.registry.release_name(&name, &record.id);
                return Err(error);
            }
            this.rooms.registry.release_name(&old, &record.id);
            let (named, before) = (this.clone(), old.clone());
            let told = tokiox::blocking(move || named.rename_endpoints(&before)).await;
            if let Err(error) = told {
                tracing::error!(container = %record.id, error = %error.chain(), "cannot rename endpoints");
            }
            this.event("rename", &[("oldName", format!("/{old}"))]);
            Ok(())
        })
        .await
    }
}
