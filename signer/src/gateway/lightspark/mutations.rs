//! What takes a letter's variables at Lightspark: one mutation for each kind of answer.

use crate::lightning::lightspark::{Letter, Method};

/// Declares the mutations: variant, name, field, its input's variables and their types, what it returns.
macro_rules! mutations {
    ($( $variant:ident $name:literal $field:literal [$($input:ident: $kind:literal),*] $returns:literal; )*) => {
        /// A mutation of Lightspark's.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(super) enum Mutation { $( #[doc = $name] $variant, )* }

        impl Mutation {
            /// Its name.
            pub(super) const fn name(self) -> &'static str { match self { $( Self::$variant => $name, )* } }

            /// The field that it asks for.
            pub(super) const fn field(self) -> &'static str { match self { $( Self::$variant => $field, )* } }

            /// As GraphQL, in one line.
            pub(super) const fn document(self) -> &'static str {
                match self {
                    $( Self::$variant => concat!(
                        "mutation ", $name, "(", $( "$", stringify!($input), ": ", $kind, " ", )* ") { ", $field,
                        "(input: { ", $( stringify!($input), ": $", stringify!($input), " ", )* "}) { ", $returns, " { id } } }"
                    ), )*
                }
            }
        }
    };
}

mutations! {
    TellPoint "UpdateChannelPerCommitmentPoint" "update_channel_per_commitment_point"
        [channel_id: "ID!", per_commitment_point: "PublicKey!", per_commitment_point_index: "Long!"] "channel";
    ReleaseSecret "ReleaseChannelPerCommitmentSecret" "release_channel_per_commitment_secret"
        [channel_id: "ID!", per_commitment_secret: "Hash32!", per_commitment_index: "Long!"] "channel";
    TellHash "SetInvoicePaymentHash" "set_invoice_payment_hash"
        [invoice_id: "ID!", payment_hash: "Hash32!", preimage_nonce: "Hash32!"] "invoice";
    ReleasePreimage "ReleasePaymentPreimage" "release_payment_preimage"
        [invoice_id: "ID!", payment_preimage: "Hash32!"] "invoice";
    Sign "SignMessages" "sign_messages" [signatures: "[IdAndSignature!]!"] "signed_payloads";
    Decline "DeclineToSignMessages" "decline_to_sign_messages" [payload_ids: "[ID!]!"] "declined_payloads";
}

impl Mutation {
    /// What takes this letter; nothing if its kind of event has no answer.
    pub(super) fn of(letter: &Letter) -> Option<Self> {
        match letter.method()? {
            _ if letter.declines => Some(Self::Decline),
            Method::GetPoint => Some(Self::TellPoint),
            Method::ReleaseSecret => Some(Self::ReleaseSecret),
            Method::InvoiceHash => Some(Self::TellHash),
            Method::ReleasePreimage => Some(Self::ReleasePreimage),
            Method::Sign => Some(Self::Sign),
            Method::Ecdh | Method::SignInvoice | Method::RevealSecret => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mutation_is_one_line_of_graphql() {
        let document = "mutation ReleasePaymentPreimage($invoice_id: ID! $payment_preimage: Hash32! ) { \
                        release_payment_preimage(input: { invoice_id: $invoice_id payment_preimage: $payment_preimage }) \
                        { invoice { id } } }";
        assert_eq!(Mutation::ReleasePreimage.document(), document);
    }
}
