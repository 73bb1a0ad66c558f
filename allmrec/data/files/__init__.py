"""Files of any form, recognised by content, as frames of text columns."""
