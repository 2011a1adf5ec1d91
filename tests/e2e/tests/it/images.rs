//! Images, as people and scripts handle them.
