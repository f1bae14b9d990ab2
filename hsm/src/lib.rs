//! Where key material rests: key slots that wrap the data key.
