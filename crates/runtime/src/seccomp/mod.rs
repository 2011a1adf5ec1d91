//! Which system calls a container may make: an OCI profile compiled to the kernel's BPF, and Docker's default profile.
//!
//! Sits on sys and oci. A profile that cannot be compiled or installed is an error, never a weaker filter: the container
//! does not start. Read [`profile`] (what is allowed), [`compile`](compile()) (what it means call by call), `emit` (how
//! that becomes a program), [`Compiler`] (so that it happens once and not at each start).

mod assembler;
mod compile;
mod compiler;
mod emit;
#[cfg(test)]
mod interpret;
pub mod profile;
mod syscalls;
#[cfg(test)]
mod tests;

use std::os::fd::OwnedFd;

use serde::{Deserialize, Serialize};
use stdx::{Context, Result};
use sys::seccomp::{Flags, Instruction};

pub use compile::compile;
pub use compiler::{Compiled, Compiler};
pub use profile::Profile;

/// A filter, ready to be installed. It travels to whoever installs it as plain numbers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "Travelling", from = "Travelling")]
pub struct Program {
    instructions: Vec<Instruction>,
    flags: Flags,
}

/// A program on its way: an instruction is one number, the code in its lowest 16 bits.
#[derive(Serialize, Deserialize)]
struct Travelling {
    flags: u32,
    instructions: Vec<u64>,
}

impl From<Program> for Travelling {
    fn from(program: Program) -> Self {
        let number = |one: &Instruction| {
            u64::from(one.code)
                | u64::from(one.jt) << 16
                | u64::from(one.jf) << 24
                | u64::from(one.k) << 32
        };
        Self {
            flags: program.flags.0,
            instructions: program.instructions.iter().map(number).collect(),
        }
    }
}

impl From<Travelling> for Program {
    fn from(travelling: Travelling) -> Self {
        let instruction = |number: &u64| {
            let [c0, c1, jt, jf, k0, k1, k2, k3] = number.to_le_bytes();
            let (code, k) = (u16::from_le_bytes([c0, c1]), u32::from_le_bytes([k0, k1, k2, k3]));
            Instruction { code, jt, jf, k }
        };
        Self {
            flags: Flags(travelling.flags),
            instructions: travelling.instructions.iter().map(instruction).collect(),
        }
    }
}

impl Program {
    /// Puts the filter over this thread and all it will start; needs CAP_SYS_ADMIN or no_new_privs.
    ///
    /// Returns the supervisor's descriptor when the profile says SCMP_ACT_NOTIFY somewhere.
    pub fn install(&self) -> Result<Option<OwnedFd>> {
        sys::seccomp::install(&self.instructions, self.flags)
            .context(|| "error loading seccomp filter".to_owned())
    }

    /// Does a supervisor have to be told of the descriptor [`install`](Self::install) returns?
    pub fn notifies(&self) -> bool {
        self.flags.contains(Flags::NEW_LISTENER)
    }

    /// How many instructions the kernel has to keep.
    pub fn len(&self) -> usize {
        self.instructions.len()
    }

    pub fn is_empty(&self) -> bool {
        self.instructions.is_empty()
    }
}

/// The architectures whose calls have numbers here. The order is that of the columns in `syscalls`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Arch {
    X86_64,
    X86,
    X32,
    Aarch64,
    Arm,
    Riscv64,
}

impl Arch {
    /// What this program was compiled for, and so what the kernel calls native.
    pub(crate) const NATIVE: Self = if cfg!(target_arch = "x86_64") {
        Self::X86_64
    } else if cfg!(target_arch = "aarch64") {
        Self::Aarch64
    } else if cfg!(target_arch = "riscv64") {
        Self::Riscv64
    } else {
        panic!("this architecture has no system call table yet")
    };

    const ALL: [Self; 6] =
        [Self::X86_64, Self::X86, Self::X32, Self::Aarch64, Self::Arm, Self::Riscv64];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::X86_64 => "SCMP_ARCH_X86_64",
            Self::X86 => "SCMP_ARCH_X86",
            Self::X32 => "SCMP_ARCH_X32",
            Self::Aarch64 => "SCMP_ARCH_AARCH64",
            Self::Arm => "SCMP_ARCH_ARM",
            Self::Riscv64 => "SCMP_ARCH_RISCV64",
        }
    }

    fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|arch| arch.name() == name)
    }

    /// `AUDIT_ARCH_*`: what the kernel tells a filter. x32 hides behind x86-64's and a bit in the number.
    fn audit(self) -> u32 {
        match self {
            Self::X86_64 | Self::X32 => 0xc000_003e,
            Self::X86 => 0x4000_0003,
            Self::Aarch64 => 0xc000_00b7,
            Self::Arm => 0x4000_0028,
            Self::Riscv64 => 0xc000_00f3,
        }
    }

    /// `__X32_SYSCALL_BIT` for x32.
    fn number_bit(self) -> u32 {
        if self == Self::X32 { 1 << 30 } else { 0 }
    }

    /// Are registers, and so arguments, 64 bits wide?
    fn is_wide(self) -> bool {
        matches!(self, Self::X86_64 | Self::Aarch64 | Self::Riscv64)
    }
}
