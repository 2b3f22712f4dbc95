"""The one exception a user can act on, so that commands and the service tell it from a bug."""


class InputError(ValueError):
    """Wrong data, option, config or file: something the user can put right.

    The message says what is wrong, what was found and what to do, in one or two lines. Commands
    print it alone and exit with 2; any other exception keeps its traceback.
    """
