//! Serializers and codecs.
