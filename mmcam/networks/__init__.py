"""Networks and where to cut them: backbones by name, any module tree in two halves, how a layer lies in space."""
