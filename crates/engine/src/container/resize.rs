//! The terminal's size follows the client's.

use stdx::Result;

use super::Container;

impl Container {
    /// Rows and columns of the container's terminal.
    pub async fn resize(&self, height: u16, width: u16) -> Result<()> {
        self.must_be_up()?;
        self.with_shim(move |shim| {
            shim.resize(shim::Target::Init, shim::Size { rows: height, columns: width })
        })
        .await?;
        self.event("resize", &[("height", height.to_string()), ("width", width.to_string())]);
        Ok(())
    }
}
