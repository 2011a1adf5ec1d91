//! Memory given back.

/// Returns freed memory of this process to the kernel, as far as the allocator can: for processes that have done their big
/// work and will live long with little.
pub fn trim() {
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim takes a number and touches only free memory.
    unsafe {
        libc::malloc_trim(0);
    }
}
