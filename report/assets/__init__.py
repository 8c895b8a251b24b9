"""What the page is made of beside its data; the scripts are joined in the order of ``page.SCRIPTS``."""
